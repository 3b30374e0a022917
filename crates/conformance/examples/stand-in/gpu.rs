// SPDX-License-Identifier: Apache-2.0 OR MIT
//! A virtio-gpu of one scanout, in 2D.

use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;

use frontend::gpu::Edid;

use crate::devices::{Chain, Device};
use crate::fault;
use crate::memory::{Broken, Memory};

const GET_DISPLAY_INFO: u32 = 0x100;
const CREATE: u32 = 0x101;
const UNREF: u32 = 0x102;
const SET_SCANOUT: u32 = 0x103;
const FLUSH: u32 = 0x104;
const TRANSFER: u32 = 0x105;
const ATTACH: u32 = 0x106;
const DETACH: u32 = 0x107;
const GET_EDID: u32 = 0x10a;
const UPDATE_CURSOR: u32 = 0x300;
const MOVE_CURSOR: u32 = 0x301;
const OK: u32 = 0x1100;
const OK_DISPLAY_INFO: u32 = 0x1101;
const OK_EDID: u32 = 0x1104;
const ERR_UNSPEC: u32 = 0x1200;
const ERR_SCANOUT: u32 = 0x1202;
const ERR_RESOURCE: u32 = 0x1203;
const ERR_PARAMETER: u32 = 0x1205;
const FENCE: u32 = 1;
/// Width and height of a cursor.
const CURSOR: usize = 64;

struct Resource {
    width: u32,
    height: u32,
    pixels: Vec<u8>,
    backing: Vec<(u64, u32)>,
}

#[derive(Default)]
pub(crate) struct Gpu {
    resources: BTreeMap<u32, Resource>,
    display: Option<UnixStream>,
    display_has_edid: bool,
    /// The resource that is shown, and which part of it.
    shown: Option<(u32, [u32; 4])>,
}

fn words(bytes: &[u8]) -> Vec<u32> {
    let word = |chunk: &[u8]| u32::from_le_bytes(chunk.try_into().unwrap());
    bytes.chunks_exact(4).map(word).collect()
}

impl Gpu {
    /// Tells the display; one that is gone is forgotten.
    fn tell(&mut self, request: u32, fields: &[u32], data: &[u8]) {
        let Some(display) = &mut self.display else {
            return;
        };
        let size = (4 * fields.len() + data.len()) as u32;
        let header = [request, 0, size].map(u32::to_ne_bytes).concat();
        let fields: Vec<u8> = fields.iter().flat_map(|word| word.to_ne_bytes()).collect();
        if display
            .write_all(&[&header, &fields, data].concat())
            .is_err()
        {
            if fault("device/gpu-display-gone") {
                std::process::abort();
            }
            self.display = None;
        }
    }

    /// Asks the display.
    fn ask(&mut self, request: u32) -> Option<Vec<u8>> {
        self.tell(request, &[], &[]);
        self.answer()
    }

    fn answer(&mut self) -> Option<Vec<u8>> {
        let display = self.display.as_mut()?;
        let mut header = [0; 12];
        display.read_exact(&mut header).ok()?;
        let size = u32::from_ne_bytes(header[8..].try_into().unwrap());
        let mut body = vec![0; size.min(4096) as usize];
        display.read_exact(&mut body).ok()?;
        Some(body)
    }

    /// The display's, or its own.
    fn edid(&mut self) -> Vec<u8> {
        if self.display_has_edid {
            // The scanout's number; the answer has a header of 24 bytes, a size and a padding.
            self.tell(11, &[0], &[]);
            let told = self.answer();
            return told
                .and_then(|told| told.get(32..160).map(<[u8]>::to_vec))
                .unwrap_or_default();
        }
        match fault("device/gpu-edid-alone") {
            true => vec![0; 128],
            false => Edid::make("Stand-in", 1280, 800),
        }
    }

    fn execute(&mut self, request: &[u8], memory: &Memory) -> Result<(u32, Vec<u8>), Broken> {
        let all = words(request);
        let kind = *all.first().ok_or(Broken)?;
        let field = |n: usize| all.get(6 + n).copied().ok_or(Broken);
        let known = |id: u32| self.resources.contains_key(&id) || fault("device/gpu-errors");
        let answer = match kind {
            GET_DISPLAY_INFO => {
                let info = self
                    .ask(3)
                    .and_then(|info| info.get(24..408).map(<[u8]>::to_vec));
                let none = fault("device/gpu-display-info");
                return Ok((
                    OK_DISPLAY_INFO,
                    info.filter(|_| !none).unwrap_or(vec![0; 384]),
                ));
            }
            GET_EDID if field(0)? > 0 => ERR_SCANOUT,
            GET_EDID => {
                let mut edid = self.edid();
                if fault("device/gpu-edid") {
                    edid[0] = 1;
                }
                let mut body = [edid.len() as u32, 0].map(u32::to_le_bytes).concat();
                body.extend(edid);
                body.resize(8 + 1024, 0);
                return Ok((OK_EDID, body));
            }
            CREATE => {
                let (id, width, height) = (field(0)?, field(2)?, field(3)?);
                let is_valid =
                    (1..=4096).contains(&width) && (1..=4096).contains(&height) && id != 0;
                if !is_valid || self.resources.contains_key(&id) {
                    ERR_PARAMETER
                } else {
                    let pixels = vec![0; (4 * width * height) as usize];
                    let resource = Resource {
                        width,
                        height,
                        pixels,
                        backing: Vec::new(),
                    };
                    self.resources.insert(id, resource);
                    OK
                }
            }
            UNREF if !known(field(0)?) => ERR_RESOURCE,
            UNREF => {
                if !fault("device/gpu-unref") {
                    self.resources.remove(&field(0)?);
                }
                OK
            }
            ATTACH | DETACH if !known(field(0)?) => ERR_RESOURCE,
            ATTACH => {
                let entries = all.get(8..).unwrap_or_default().chunks_exact(4);
                let entries = entries.map(|e| (u64::from(e[0]) | u64::from(e[1]) << 32, e[2]));
                if let Some(resource) = self.resources.get_mut(&field(0)?) {
                    resource.backing = entries.collect();
                }
                OK
            }
            DETACH => {
                if let Some(resource) = self.resources.get_mut(&field(0)?) {
                    resource.backing.clear();
                }
                OK
            }
            TRANSFER => {
                let rect = [field(0)?, field(1)?, field(2)?, field(3)?];
                let offset = u64::from(field(4)?) | u64::from(field(5)?) << 32;
                self.transfer(field(6)?, rect, offset, memory)?
            }
            SET_SCANOUT if field(4)? > 0 => match fault("device/gpu-scanouts") {
                true => OK,
                false => ERR_SCANOUT,
            },
            SET_SCANOUT => {
                self.set_scanout(field(5)?, [field(0)?, field(1)?, field(2)?, field(3)?])
            }
            FLUSH => self.flush(field(4)?, [field(0)?, field(1)?, field(2)?, field(3)?]),
            _ if fault("device/gpu-unknown-command") => OK,
            _ => ERR_UNSPEC,
        };
        Ok((answer, Vec::new()))
    }

    fn transfer(
        &mut self,
        id: u32,
        [x, y, width, height]: [u32; 4],
        offset: u64,
        memory: &Memory,
    ) -> Result<u32, Broken> {
        let Some(resource) = self.resources.get_mut(&id) else {
            return Ok(ERR_RESOURCE);
        };
        let inside = x.saturating_add(width) <= resource.width
            && y.saturating_add(height) <= resource.height;
        if !inside {
            return Ok(ERR_PARAMETER);
        }
        let mut backing = Vec::new();
        for (address, len) in &resource.backing {
            backing.extend(memory.read(*address, *len as usize)?);
        }
        let stride = 4 * resource.width as usize;
        for row in 0..height as usize {
            let from = offset as usize + row * stride;
            let to = (y as usize + row) * stride + 4 * x as usize;
            let len = 4 * width as usize;
            let Some(pixels) = backing.get(from..from + len) else {
                return Ok(ERR_PARAMETER);
            };
            if !fault("device/gpu-picture") {
                resource.pixels[to..to + len].copy_from_slice(pixels);
            }
        }
        Ok(OK)
    }

    fn set_scanout(&mut self, id: u32, rect: [u32; 4]) -> u32 {
        if id == 0 {
            self.shown = None;
            if !fault("device/gpu-scanout-off") {
                self.tell(7, &[0, 0, 0], &[]);
            }
            return OK;
        }
        let Some(resource) = self.resources.get(&id) else {
            return ERR_RESOURCE;
        };
        let [x, y, width, height] = rect;
        let inside = x.saturating_add(width) <= resource.width
            && y.saturating_add(height) <= resource.height;
        if !inside || width == 0 || height == 0 {
            return match fault("device/gpu-rectangles") {
                true => OK,
                false => ERR_PARAMETER,
            };
        }
        self.shown = Some((id, rect));
        self.tell(7, &[0, width, height], &[]);
        OK
    }

    fn flush(&mut self, id: u32, [x, y, width, height]: [u32; 4]) -> u32 {
        let Some(resource) = self.resources.get(&id) else {
            return ERR_RESOURCE;
        };
        let Some((shown, [left, top, ..])) = self.shown else {
            return OK;
        };
        let inside = x.saturating_add(width) <= resource.width
            && y.saturating_add(height) <= resource.height;
        if !inside {
            return ERR_PARAMETER;
        }
        if shown != id || x < left || y < top {
            return OK;
        }
        let stride = 4 * resource.width as usize;
        let mut data = Vec::new();
        for row in y..y + height {
            let from = row as usize * stride + 4 * x as usize;
            data.extend_from_slice(&resource.pixels[from..from + 4 * width as usize]);
        }
        self.tell(8, &[0, x - left, y - top, width, height], &data);
        OK
    }

    fn cursor(&mut self, request: &[u8]) -> Result<(), Broken> {
        let all = words(request);
        let field = |n: usize| all.get(6 + n).copied().ok_or(Broken);
        let place = [field(0)?, field(1)?, field(2)?];
        match *all.first().ok_or(Broken)? {
            UPDATE_CURSOR if fault("device/gpu-cursor") => {}
            UPDATE_CURSOR => {
                let resource = self.resources.get(&field(4)?);
                let pixels = resource.map(|resource| resource.pixels.clone());
                if let Some(pixels) = pixels.filter(|pixels| pixels.len() == 4 * CURSOR * CURSOR) {
                    let fields = [place[0], place[1], place[2], field(5)?, field(6)?];
                    self.tell(6, &fields, &pixels);
                }
            }
            MOVE_CURSOR => self.tell(4, &place, &[]),
            _ => {}
        }
        Ok(())
    }
}

impl Device for Gpu {
    fn queues(&self) -> usize {
        2
    }

    fn features(&self) -> u64 {
        1 << 1
    }

    fn config(&self) -> Vec<u8> {
        let scanouts = if fault("device/gpu-config") { 0 } else { 1 };
        [0, 0, scanouts, 0].map(u32::to_le_bytes).concat()
    }

    fn handle(
        &mut self,
        queue: usize,
        chain: &Chain,
        memory: &Memory,
    ) -> Result<Option<u32>, Broken> {
        let request = chain.read(memory)?;
        if queue == 1 {
            self.cursor(&request)?;
            return Ok(Some(0));
        }
        let (kind, body) = self.execute(&request, memory)?;
        let flags = words(request.get(4..8).ok_or(Broken)?)[0] & FENCE;
        let mut answer = kind.to_le_bytes().to_vec();
        if fault("device/gpu-fence") || flags == 0 {
            answer.extend([0; 20]);
        } else {
            answer.extend(flags.to_le_bytes());
            answer.extend(request.get(8..16).ok_or(Broken)?);
            answer.extend([0; 8]);
        }
        answer.extend(body);
        Ok(Some(chain.write(memory, &answer)?))
    }

    fn set_display(&mut self, socket: OwnedFd) {
        self.display = Some(socket.into());
        let offered = self.ask(1).and_then(|bytes| bytes.first().copied());
        let edid = offered.unwrap_or_default() & 1;
        self.display_has_edid = edid != 0;
        self.tell(2, &[edid.into(), 0], &[]);
    }

    fn reset(&mut self) {
        if !fault("device/gpu-reset") {
            self.resources.clear();
            self.shown = None;
        }
    }
}
