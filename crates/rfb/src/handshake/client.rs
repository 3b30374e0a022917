// SPDX-License-Identifier: Apache-2.0 OR MIT

use super::{HandshakeError, SECURITY_NONE, ServerInit, TEXT_LIMIT, VERSION_LEN, Version};
use crate::PixelFormat;
use crate::input::{take, take_slice};

/// The viewer's side of a handshake. It keeps no bytes: what a call leaves in its input (at most some kilobytes),
/// the caller passes again with more behind.
#[derive(Debug)]
pub struct ClientHandshake {
    step: Step,
    highest: Version,
    shared: bool,
}

#[derive(Debug, Clone, Copy)]
enum Step {
    Version,
    Security(Version),
    SecurityResult,
    ServerInit,
}

impl ClientHandshake {
    /// A viewer that speaks at most `highest`, and shares the desktop or wants it alone.
    #[must_use]
    pub fn new(highest: Version, shared: bool) -> Self {
        Self {
            step: Step::Version,
            highest,
            shared,
        }
    }

    /// Takes what the server sent off `input`, and appends answers to `out`. `None`: more has to come.
    ///
    /// # Errors
    /// Where the server does not follow the protocol, refuses the viewer, or wants a password.
    pub fn advance(
        &mut self,
        input: &mut &[u8],
        out: &mut Vec<u8>,
    ) -> Result<Option<ServerInit>, HandshakeError> {
        loop {
            let mut rest = *input;
            let next = match self.step {
                Step::Version => take(&mut rest)
                    .map(|message| self.on_version(&message, out))
                    .transpose()?,
                Step::Security(Version::V3_3) => self.security_type(&mut rest, out)?,
                Step::Security(version) => self.security_types(version, &mut rest, out)?,
                Step::SecurityResult => self.security_result(&mut rest, out)?,
                Step::ServerInit => {
                    let init = server_init(&mut rest)?;
                    if init.is_some() {
                        *input = rest;
                    }
                    return Ok(init);
                }
            };
            let Some(next) = next else {
                return Ok(None);
            };
            *input = rest;
            self.step = next;
        }
    }

    fn on_version(
        &self,
        message: &[u8; VERSION_LEN],
        out: &mut Vec<u8>,
    ) -> Result<Step, HandshakeError> {
        let version = Version::of_peer(message)?.min(self.highest);
        out.extend_from_slice(version.message());
        Ok(Step::Security(version))
    }

    /// 3.3: the server decides.
    fn security_type(
        &self,
        input: &mut &[u8],
        out: &mut Vec<u8>,
    ) -> Result<Option<Step>, HandshakeError> {
        let Some(decided) = take(input).map(u32::from_be_bytes) else {
            return Ok(None);
        };
        if decided == 0 {
            return refusal(input);
        }
        if decided != u32::from(SECURITY_NONE) {
            let decided = u8::try_from(decided).unwrap_or(u8::MAX);
            return Err(HandshakeError::SecurityNotSpoken(vec![decided]));
        }
        Ok(Some(self.client_init(out)))
    }

    /// 3.7 and 3.8: the viewer chooses.
    fn security_types(
        &self,
        version: Version,
        input: &mut &[u8],
        out: &mut Vec<u8>,
    ) -> Result<Option<Step>, HandshakeError> {
        let Some([count]) = take(input) else {
            return Ok(None);
        };
        if count == 0 {
            return refusal(input);
        }
        let Some(offered) = take_slice(input, count.into()) else {
            return Ok(None);
        };
        if !offered.contains(&SECURITY_NONE) {
            return Err(HandshakeError::SecurityNotSpoken(offered.to_vec()));
        }
        out.push(SECURITY_NONE);
        Ok(Some(if version == Version::V3_8 {
            Step::SecurityResult
        } else {
            self.client_init(out)
        }))
    }

    fn security_result(
        &self,
        input: &mut &[u8],
        out: &mut Vec<u8>,
    ) -> Result<Option<Step>, HandshakeError> {
        match take(input).map(u32::from_be_bytes) {
            None => Ok(None),
            Some(0) => Ok(Some(self.client_init(out))),
            Some(_) => refusal(input),
        }
    }

    fn client_init(&self, out: &mut Vec<u8>) -> Step {
        out.push(self.shared.into());
        Step::ServerInit
    }
}

/// The reason why there is no next step, once all of it is there.
fn refusal(input: &mut &[u8]) -> Result<Option<Step>, HandshakeError> {
    let Some(len) = take(input).map(u32::from_be_bytes) else {
        return Ok(None);
    };
    // A longer one is cut: the connection ends anyway.
    let len = usize::try_from(len).map_or(TEXT_LIMIT, |len| len.min(TEXT_LIMIT));
    match take_slice(input, len) {
        None => Ok(None),
        Some(reason) => Err(HandshakeError::Refused(
            String::from_utf8_lossy(reason).into_owned(),
        )),
    }
}

fn server_init(input: &mut &[u8]) -> Result<Option<ServerInit>, HandshakeError> {
    let (Some(width), Some(height), Some(format), Some(len)) =
        (take(input), take(input), take(input), take(input))
    else {
        return Ok(None);
    };
    let format = PixelFormat::read(format)?;
    let len = u32::from_be_bytes(len);
    let wanted = usize::try_from(len).ok().filter(|len| *len <= TEXT_LIMIT);
    let wanted = wanted.ok_or(HandshakeError::NameLen(len))?;
    let name = take_slice(input, wanted);
    Ok(name.map(|name| ServerInit {
        width: u16::from_be_bytes(width),
        height: u16::from_be_bytes(height),
        format,
        name: String::from_utf8_lossy(name).into_owned(),
    }))
}
