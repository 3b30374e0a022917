//! Every command with right and wrong arguments, without queues and sockets.

use vm_memory::{Bytes, GuestAddress, GuestAddressSpace, GuestMemoryAtomic, GuestMemoryMmap};

use super::*;
use crate::gpu::protocol::{
    DisplayInfo, EncodedResponse, Features, HEADER_LEN, Header, MAX_SCANOUTS, command, response,
};
use crate::gpu::region::{Rect, Size};
use crate::gpu::renderer::{SoftwareRenderer, WORK};
use crate::gpu::resource::Budget;
use crate::gpu::scanout::{Position, Update};

const WIDTH: u32 = 64;
const HEIGHT: u32 = 64;
const LEN: u32 = WIDTH * HEIGHT * 4;
const MEMORY: u64 = 0x10_0000;
const BGRX: u32 = 2;

#[derive(Clone, Copy)]
enum QueueKind {
    Control,
    Cursor,
}

struct Guest {
    state: VirtioGpu,
    reply: Option<DisplayReply>,
    /// Work and error of the last request.
    work: u64,
    error: Option<CommandError>,
    memory: MemoryGuard,
}

/// A request without a fence; `words` follow its header.
fn request(kind: u32, words: &[u32]) -> Vec<u8> {
    let mut bytes = kind.to_le_bytes().to_vec();
    bytes.resize(HEADER_LEN, 0);
    bytes.extend(words.iter().flat_map(|w| w.to_le_bytes()));
    bytes
}

fn kind(bytes: &[u8]) -> u32 {
    u32::from_le_bytes(bytes[..4].try_into().unwrap())
}

impl Guest {
    fn new() -> Self {
        Self::with_budget(1 << 20)
    }

    fn with_budget(bytes: u64) -> Self {
        let renderer = SoftwareRenderer::new(Budget::new(bytes));
        let memory = GuestMemoryMmap::from_ranges(&[(GuestAddress(0), MEMORY as usize)]).unwrap();
        let memory = GuestMemoryAtomic::new(memory).memory();
        Self {
            state: VirtioGpu::new(Box::new(renderer)),
            reply: None,
            work: 0,
            error: None,
            memory,
        }
    }

    /// With resource 1, 64 by 64 pixels, backed by the memory from 0 on.
    fn with_resource() -> Self {
        let mut guest = Self::new();
        guest.ok(command::RESOURCE_CREATE_2D, &[1, BGRX, WIDTH, HEIGHT]);
        guest.ok(command::RESOURCE_ATTACH_BACKING, &[1, 1, 0, 0, LEN, 0]);
        guest
    }

    /// Executes a request as the device's queues do.
    fn execute(&mut self, queue: QueueKind, bytes: &[u8]) -> CommandResult {
        self.execute_with_header(queue, bytes).1
    }

    fn execute_with_header(&mut self, queue: QueueKind, bytes: &[u8]) -> (Header, CommandResult) {
        let mut reader = RequestReader::new(bytes);
        let (header, result) = match queue {
            QueueKind::Control => {
                let request = Command::decode(&mut reader, Features::default());
                let reply = self.reply.take();
                let execution = self
                    .state
                    .execute(request, &mut reader, &self.memory, reply);
                self.work = execution.work;
                (request.header, execution.result)
            }
            QueueKind::Cursor => {
                let request = CursorCommand::decode(&mut reader);
                let result = self.state.execute_cursor(request.command);
                (request.header, result.map(CommandResult::Complete))
            }
        };
        let result = result.unwrap_or_else(|error| {
            let response = Response::Error(error.code());
            self.error = Some(error);
            response.into()
        });
        (header, result)
    }

    fn done(&mut self, queue: QueueKind, bytes: &[u8]) -> EncodedResponse {
        match self.execute_with_header(queue, bytes) {
            (header, CommandResult::Complete(response)) => response.encode(&header),
            (_, other) => panic!("{other:?}"),
        }
    }

    /// The kind of response to a command of the control queue.
    fn control(&mut self, command: u32, words: &[u32]) -> u32 {
        kind(&self.done(QueueKind::Control, &request(command, words)))
    }

    fn cursor(&mut self, command: u32, words: &[u32]) -> u32 {
        kind(&self.done(QueueKind::Cursor, &request(command, words)))
    }

    #[track_caller]
    fn ok(&mut self, command: u32, words: &[u32]) {
        assert_eq!(self.control(command, words), response::OK_NODATA);
    }

    fn updates(&mut self) -> Vec<Update> {
        std::iter::from_fn(|| self.state.scanouts.take_update(false)).collect()
    }
}

#[test]
fn a_request_of_any_length_is_answered() {
    let commands = [
        (command::RESOURCE_CREATE_2D, vec![7, BGRX, 1, 1]),
        (command::RESOURCE_UNREF, vec![1, 0]),
        (command::SET_SCANOUT, vec![0, 0, 1, 1, 0, 1]),
        (command::RESOURCE_FLUSH, vec![0, 0, 1, 1, 1, 0]),
        (command::TRANSFER_TO_HOST_2D, vec![0, 0, 1, 1, 0, 0, 1, 0]),
        (command::RESOURCE_ATTACH_BACKING, vec![1, 1, 0, 0, 4, 0]),
        (command::RESOURCE_DETACH_BACKING, vec![1, 0]),
        (command::GET_EDID, vec![0, 0]),
        (command::RESOURCE_ASSIGN_UUID, vec![1, 0]),
    ];
    for (command, words) in commands {
        let whole = request(command, &words);
        for len in 0..whole.len() {
            let mut guest = Guest::with_resource();
            let padding = 4;
            let (header, result) = guest.execute_with_header(QueueKind::Control, &whole[..len]);
            if let CommandResult::Complete(response) = result {
                let response = response.encode(&header);
                assert_eq!(response.len() % 4, 0);
                let short = len + padding < whole.len() || len < HEADER_LEN;
                // A command may end with padding that nobody reads.
                let kind = kind(&response);
                assert!(
                    !short
                        || kind == response::ERR_INVALID_PARAMETER
                        || kind == response::ERR_UNSPEC,
                    "{command:#x} cut to {len}: {kind:#x}"
                );
            }
        }
    }
}

#[test]
fn unknown_commands_are_unspecified_errors() {
    let mut guest = Guest::new();
    for command in [0, 0x10c, 0x200, 0x207, 0x300, 0x301, 0x1100, u32::MAX] {
        assert_eq!(guest.control(command, &[0; 16]), response::ERR_UNSPEC);
        assert!(guest.error.take().is_some());
    }
    assert_eq!(
        guest.cursor(command::RESOURCE_CREATE_2D, &[1, BGRX, 1, 1]),
        response::ERR_UNSPEC
    );
    assert_eq!(
        guest.control(command::GET_CAPSET_INFO, &[0, 0]),
        response::ERR_INVALID_PARAMETER
    );
}

#[test]
fn a_fence_comes_back_with_success_and_with_failure() {
    let mut guest = Guest::new();
    for words in [[1, BGRX, 1, 1], [1, BGRX, 1, 1]] {
        let mut bytes = request(command::RESOURCE_CREATE_2D, &words);
        bytes[4] = 1;
        bytes[8..16].copy_from_slice(&77_u64.to_le_bytes());
        bytes[16] = 5;
        let response = guest.done(QueueKind::Control, &bytes);
        let mut expected = bytes[..HEADER_LEN].to_vec();
        expected[..4].copy_from_slice(&response[..4]);
        assert_eq!(*response, expected);
    }
}

#[test]
fn resources_are_made_within_bounds() {
    let mut guest = Guest::new();
    let create = command::RESOURCE_CREATE_2D;
    for format in [1, 2, 3, 4, 67, 68, 121, 134] {
        guest.ok(create, &[format, format, 3, 5]);
    }
    let wrong = [
        ([0, BGRX, 1, 1], response::ERR_INVALID_RESOURCE_ID),
        ([1, BGRX, 1, 1], response::ERR_INVALID_RESOURCE_ID),
        ([9, 0, 1, 1], response::ERR_INVALID_PARAMETER),
        ([9, 5, 1, 1], response::ERR_INVALID_PARAMETER),
        ([9, BGRX, 0, 1], response::ERR_INVALID_PARAMETER),
        ([9, BGRX, 1, 0], response::ERR_INVALID_PARAMETER),
        (
            [9, BGRX, u32::MAX, u32::MAX],
            response::ERR_INVALID_PARAMETER,
        ),
        ([9, BGRX, 0x4000_0001, 4], response::ERR_INVALID_PARAMETER),
        ([9, BGRX, 1024, 1024], response::ERR_OUT_OF_MEMORY),
    ];
    for (words, expected) in wrong {
        assert_eq!(guest.control(create, &words), expected, "{words:?}");
        guest.error.take().unwrap();
    }
    guest.ok(command::RESOURCE_UNREF, &[1, 0]);
    assert_eq!(
        guest.control(command::RESOURCE_UNREF, &[1, 0]),
        response::ERR_INVALID_RESOURCE_ID
    );
}

#[test]
fn a_backing_is_attached_once_and_from_the_guests_memory() {
    let mut guest = Guest::new();
    let attach = command::RESOURCE_ATTACH_BACKING;
    guest.ok(command::RESOURCE_CREATE_2D, &[1, BGRX, WIDTH, HEIGHT]);
    let end = MEMORY as u32;
    let wrong: [(&[u32], u32); 6] = [
        (&[2, 1, 0, 0, 16, 0], response::ERR_INVALID_RESOURCE_ID),
        (&[1, 2, 0, 0, 16, 0], response::ERR_INVALID_PARAMETER),
        (&[1, u32::MAX, 0, 0, 16, 0], response::ERR_INVALID_PARAMETER),
        (&[1, 1, end, 0, 1, 0], response::ERR_INVALID_PARAMETER),
        (&[1, 1, end - 4, 0, 5, 0], response::ERR_INVALID_PARAMETER),
        (
            &[1, 1, u32::MAX, u32::MAX, u32::MAX, 0],
            response::ERR_INVALID_PARAMETER,
        ),
    ];
    for (words, expected) in wrong {
        assert_eq!(guest.control(attach, words), expected, "{words:?}");
    }
    assert_eq!(
        guest.control(command::RESOURCE_DETACH_BACKING, &[1, 0]),
        response::ERR_UNSPEC
    );
    guest.ok(attach, &[1, 1, end - 4, 0, 4, 0]);
    assert_eq!(
        guest.control(attach, &[1, 1, 0, 0, 4, 0]),
        response::ERR_UNSPEC
    );
    guest.ok(command::RESOURCE_DETACH_BACKING, &[1, 0]);
    guest.ok(attach, &[1, 0]);
}

/// In several steps, and with what is found in the request at each of them.
#[test]
fn a_long_list_of_entries_is_read_in_parts() {
    /// An entry counts for 128 bytes.
    const STEP: usize = (WORK / 128) as usize;
    let mut guest = Guest::with_budget(64 << 20);
    let attach = |count: u32, entries: u32, first: u32| {
        let mut words = vec![1, count];
        for i in 0..entries {
            words.extend([(i % 2) * 8 + first, 0, 1, 0]);
        }
        request(command::RESOURCE_ATTACH_BACKING, &words)
    };
    guest.ok(command::RESOURCE_CREATE_2D, &[1, BGRX, WIDTH, HEIGHT]);
    let steps = |guest: &mut Guest, bytes: &[u8]| {
        let mut steps = 0;
        loop {
            match guest.execute_with_header(QueueKind::Control, bytes) {
                (_, CommandResult::Incomplete) => steps += 1,
                (header, CommandResult::Complete(response)) => {
                    return (steps, kind(&response.encode(&header)));
                }
                (_, other) => panic!("{other:?}"),
            }
        }
    };
    let count = 3 * STEP as u32 + 1;
    let short = steps(&mut guest, &attach(count, count - 1, 0));
    assert_eq!(short, (3, response::ERR_INVALID_PARAMETER));
    let whole = steps(&mut guest, &attach(count, count, 0));
    assert_eq!(whole, (3, response::OK_NODATA));
    guest.ok(command::RESOURCE_DETACH_BACKING, &[1, 0]);

    // Another request in between begins from its own start.
    let long = attach(count, count, 0);
    for other in [
        attach(count - 1, count - 1, 0),
        request(command::RESOURCE_FLUSH, &[0, 0, 1, 1, 1, 0]),
    ] {
        assert_eq!(
            guest.execute(QueueKind::Control, &long),
            CommandResult::Incomplete
        );
        let (_, answer) = steps(&mut guest, &other);
        assert_eq!(answer, response::OK_NODATA);
        let _ = guest.control(command::RESOURCE_DETACH_BACKING, &[1, 0]);
        assert_eq!(steps(&mut guest, &long), (3, response::OK_NODATA));
        guest.ok(command::RESOURCE_DETACH_BACKING, &[1, 0]);
    }
    assert_eq!(
        guest.execute(QueueKind::Control, &long),
        CommandResult::Incomplete
    );
    guest.state.drop_partial();
    assert_eq!(steps(&mut guest, &long), (3, response::OK_NODATA));
}

/// A transfer of more pieces than are looked at in one go.
#[test]
fn a_long_transfer_is_done_in_parts() {
    let mut guest = Guest::with_budget(64 << 20);
    let side: u32 = 512;
    guest.ok(command::RESOURCE_CREATE_2D, &[1, BGRX, side, side]);
    // Byte by byte, each pixel's last byte first.
    let bytes = side * side * 4;
    let mut words = vec![1, bytes];
    for i in 0..bytes {
        words.extend([i ^ 3, 0, 1, 0]);
    }
    let attach = request(command::RESOURCE_ATTACH_BACKING, &words);
    while guest.execute(QueueKind::Control, &attach) == CommandResult::Incomplete {}
    let pixel = |i: u32| [i as u8, (i >> 8) as u8, 7, 9];
    let pixels: Vec<u8> = (0..side * side).flat_map(pixel).collect();
    guest.memory.write_slice(&pixels, GuestAddress(0)).unwrap();
    guest.ok(command::SET_SCANOUT, &[0, 0, side, side, 0, 1]);
    let transfer = request(
        command::TRANSFER_TO_HOST_2D,
        &[0, 0, side, side, 0, 0, 1, 0],
    );
    let mut parts = 1;
    while guest.execute(QueueKind::Control, &transfer) == CommandResult::Incomplete {
        parts += 1;
    }
    assert!(parts > 4, "{parts}");
    let image = guest.state.renderer.image(1).unwrap();
    let image = image.lock();
    for y in 0..side {
        let row = image.bytes(0, y, side as usize * 4);
        for (x, found) in (0..side).zip(row.chunks(4)) {
            let mut expected = pixel(y * side + x);
            expected.reverse();
            assert_eq!(found, expected, "{x}, {y}");
        }
    }
}

#[test]
fn transfers_lie_within_resource_and_backing() {
    let mut guest = Guest::with_resource();
    let transfer = command::TRANSFER_TO_HOST_2D;
    guest.ok(command::RESOURCE_CREATE_2D, &[2, BGRX, 8, 8]);
    let wrong = [
        ([0, 0, 1, 1, 0, 0, 9, 0], response::ERR_INVALID_RESOURCE_ID),
        ([0, 0, 1, 1, 0, 0, 2, 0], response::ERR_UNSPEC),
        ([0, 0, 65, 1, 0, 0, 1, 0], response::ERR_INVALID_PARAMETER),
        ([0, 64, 1, 1, 0, 0, 1, 0], response::ERR_INVALID_PARAMETER),
        (
            [u32::MAX, 0, 2, 1, 0, 0, 1, 0],
            response::ERR_INVALID_PARAMETER,
        ),
        ([0, 0, 64, 64, 1, 0, 1, 0], response::ERR_INVALID_PARAMETER),
        (
            [0, 0, 1, 1, u32::MAX, u32::MAX, 1, 0],
            response::ERR_INVALID_PARAMETER,
        ),
    ];
    for (words, expected) in wrong {
        assert_eq!(guest.control(transfer, &words), expected, "{words:?}");
        assert_eq!(guest.work, 0);
    }
    guest.ok(transfer, &[0, 0, 64, 64, 0, 0, 1, 0]);
    assert!((LEN.into()..3 * u64::from(LEN)).contains(&guest.work));
    guest.ok(transfer, &[64, 64, 0, 0, 0, 0, 1, 0]);
    guest.ok(transfer, &[63, 63, 1, 1, LEN - 4, 0, 1, 0]);
}

#[test]
fn what_is_drawn_reaches_the_scanouts_that_show_it() {
    let mut guest = Guest::with_resource();
    guest.ok(command::SET_SCANOUT, &[0, 0, 32, 64, 0, 1]);
    guest.ok(command::SET_SCANOUT, &[32, 0, 32, 64, 15, 1]);
    guest.ok(command::RESOURCE_FLUSH, &[0, 0, 64, 64, 1, 0]);
    assert_eq!(guest.updates().len(), 4);
    guest
        .memory
        .write_slice(&[5; 4], GuestAddress(36 * 4))
        .unwrap();
    guest.ok(command::TRANSFER_TO_HOST_2D, &[0, 0, 64, 64, 0, 0, 1, 0]);
    guest.ok(command::RESOURCE_FLUSH, &[0, 0, 64, 64, 1, 0]);
    let updates = guest.updates();
    let [
        Update::Pixels {
            id: 15,
            rect,
            source,
            image,
        },
    ] = &updates[..]
    else {
        panic!("{updates:?}");
    };
    assert_eq!((rect.x, rect.y, rect.width, rect.height), (4, 0, 1, 1));
    assert_eq!(image.lock().bytes(source.x, source.y, 4), [5; 4]);
}

#[test]
fn scanouts_lie_within_their_resource() {
    let mut guest = Guest::with_resource();
    let set = command::SET_SCANOUT;
    let wrong = [
        ([0, 0, 64, 64, 16, 1], response::ERR_INVALID_SCANOUT_ID),
        (
            [0, 0, 64, 64, u32::MAX, 0],
            response::ERR_INVALID_SCANOUT_ID,
        ),
        ([0, 0, 64, 64, 0, 2], response::ERR_INVALID_RESOURCE_ID),
        ([1, 0, 64, 64, 0, 1], response::ERR_INVALID_PARAMETER),
        ([0, 0, 64, 65, 0, 1], response::ERR_INVALID_PARAMETER),
        ([0, u32::MAX, 64, 2, 0, 1], response::ERR_INVALID_PARAMETER),
        ([0, 0, 0, 64, 0, 1], response::ERR_INVALID_PARAMETER),
        ([0, 0, 64, 0, 0, 1], response::ERR_INVALID_PARAMETER),
    ];
    for (words, expected) in wrong {
        assert_eq!(guest.control(set, &words), expected, "{words:?}");
    }
    assert!(guest.updates().is_empty());
    for scanout in 0..MAX_SCANOUTS as u32 {
        guest.ok(set, &[1, 1, 63, 63, scanout, 1]);
    }
    assert_eq!(guest.updates().len(), MAX_SCANOUTS);
    guest.ok(set, &[9, 9, 9, 9, 3, 0]);
    assert!(matches!(
        guest.updates()[..],
        [Update::Scanout {
            id: 3,
            size: Size {
                width: 0,
                height: 0
            }
        }]
    ));
    guest.ok(command::RESOURCE_UNREF, &[1, 0]);
    assert_eq!(guest.updates().len(), MAX_SCANOUTS - 1);
    for (words, expected) in [
        ([0, 0, 64, 64, 1, 0], response::ERR_INVALID_RESOURCE_ID),
        ([0, 0, 64, 64, 0, 0], response::ERR_INVALID_RESOURCE_ID),
    ] {
        let flush = command::RESOURCE_FLUSH;
        assert_eq!(guest.control(flush, &words), expected);
    }
}

#[test]
fn flushes_lie_within_their_resource() {
    let mut guest = Guest::with_resource();
    let flush = command::RESOURCE_FLUSH;
    for rect in [
        [0, 0, 65, 1],
        [1, 0, 64, 1],
        [0, 64, 1, 1],
        [u32::MAX, 0, 1, 1],
    ] {
        let [x, y, width, height] = rect;
        assert_eq!(
            guest.control(flush, &[x, y, width, height, 1, 0]),
            response::ERR_INVALID_PARAMETER
        );
    }
    guest.ok(flush, &[64, 64, 0, 0, 1, 0]);
}

#[test]
fn the_displays_sizes_are_asked_for() {
    let mut guest = Guest::new();
    let bytes = request(command::GET_DISPLAY_INFO, &[]);
    let ask = CommandResult::NeedsDisplay(DisplayQuery::DisplayInfo);
    assert_eq!(guest.execute(QueueKind::Control, &bytes), ask);
    assert_eq!(guest.execute(QueueKind::Control, &bytes), ask);
    let mut modes = DisplayInfo::default();
    modes.0[0].rect = Rect::sized(800, 600);
    guest.reply = Some(DisplayReply::DisplayInfo(Box::new(modes)));
    let response = guest.done(QueueKind::Control, &bytes);
    assert_eq!(kind(&response), response::OK_DISPLAY_INFO);
    assert_eq!(DisplayInfo::decode_response(&response).unwrap(), modes);
    // The answer is good once; what it said is remembered for when there is none.
    assert_eq!(guest.execute(QueueKind::Control, &bytes), ask);
    guest.reply = Some(DisplayReply::Nothing);
    let response = guest.done(QueueKind::Control, &bytes);
    assert_eq!(DisplayInfo::decode_response(&response).unwrap(), modes);
}

#[test]
fn an_answer_does_not_outlive_the_request_that_changed_meanwhile() {
    let mut guest = Guest::new();
    guest.reply = Some(DisplayReply::Nothing);
    guest.ok(command::RESOURCE_CREATE_2D, &[1, BGRX, 1, 1]);
    let bytes = request(command::GET_DISPLAY_INFO, &[]);
    let outcome = guest.execute(QueueKind::Control, &bytes);
    assert_eq!(
        outcome,
        CommandResult::NeedsDisplay(DisplayQuery::DisplayInfo)
    );
}

#[test]
fn an_edid_comes_from_the_front_end_or_from_here() {
    let mut guest = Guest::new();
    let bytes = request(command::GET_EDID, &[1, 0]);
    let ask = CommandResult::NeedsDisplay(DisplayQuery::Edid(1));
    assert_eq!(guest.execute(QueueKind::Control, &bytes), ask);
    guest.reply = Some(DisplayReply::Edid(vec![3; 256]));
    let response = guest.done(QueueKind::Control, &bytes);
    assert_eq!(kind(&response), response::OK_EDID);
    assert_eq!(response[HEADER_LEN..HEADER_LEN + 4], 256_u32.to_le_bytes());

    let mut modes = DisplayInfo::default();
    modes.0[1] = modes.0[0];
    modes.0[1].rect = Rect::sized(1600, 900);
    let reply = DisplayReply::DisplayInfo(Box::new(modes));
    let expected = LastDisplayInfo::default().edid(1, reply);
    guest.reply = Some(DisplayReply::DisplayInfo(Box::new(modes)));
    let response = guest.done(QueueKind::Control, &bytes);
    assert_eq!(response[HEADER_LEN + 8..][..128], expected);
    guest.reply = Some(DisplayReply::Nothing);
    let response = guest.done(QueueKind::Control, &bytes);
    assert_eq!(response[HEADER_LEN + 8..][..128], expected);

    assert_eq!(
        guest.control(command::GET_EDID, &[16, 0]),
        response::ERR_INVALID_SCANOUT_ID
    );
}

#[test]
fn a_resource_keeps_its_uuid() {
    let mut guest = Guest::with_resource();
    guest.ok(command::RESOURCE_CREATE_2D, &[2, BGRX, 1, 1]);
    let mut uuid = |id| {
        let bytes = request(command::RESOURCE_ASSIGN_UUID, &[id, 0]);
        let response = guest.done(QueueKind::Control, &bytes);
        assert_eq!(kind(&response), response::OK_RESOURCE_UUID);
        let uuid: [u8; 16] = response[HEADER_LEN..].try_into().unwrap();
        assert_eq!((uuid[6] >> 4, uuid[8] >> 6), (4, 2));
        uuid
    };
    assert_eq!(uuid(1), uuid(1));
    assert_ne!(uuid(1), uuid(2));
    assert_eq!(
        guest.control(command::RESOURCE_ASSIGN_UUID, &[3, 0]),
        response::ERR_INVALID_RESOURCE_ID
    );
}

#[test]
fn cursors_are_shaped_moved_and_hidden() {
    let mut guest = Guest::with_resource();
    guest
        .memory
        .write_slice(&[6; 16384], GuestAddress(0))
        .unwrap();
    guest.ok(command::TRANSFER_TO_HOST_2D, &[0, 0, 64, 64, 0, 0, 1, 0]);
    let update = command::UPDATE_CURSOR;
    let ok = response::OK_NODATA;
    assert_eq!(guest.cursor(update, &[2, 10, 20, 0, 1, 3, 4, 0]), ok);
    // A cursor is what the resource was at that time.
    guest.ok(command::RESOURCE_UNREF, &[1, 0]);
    let updates = guest.updates();
    let [
        Update::Cursor {
            id: 2,
            position,
            shape,
        },
    ] = &updates[..]
    else {
        panic!("{updates:?}");
    };
    let visible = true;
    assert_eq!(
        *position,
        Position {
            x: 10,
            y: 20,
            visible
        }
    );
    assert_eq!((shape.hot_x, shape.hot_y), (3, 4));
    assert!(shape.pixels.iter().all(|b| *b == 6));

    let move_cursor = command::MOVE_CURSOR;
    for (command, id) in [(move_cursor, 1), (move_cursor, 0), (update, 0)] {
        assert_eq!(guest.cursor(command, &[2, 5, 6, 0, id, 0, 0, 0]), ok);
        let updates = guest.updates();
        let [Update::CursorPosition { id: 2, position }] = &updates[..] else {
            panic!("{updates:?}");
        };
        assert_eq!(position.visible, id != 0);
    }
}

#[test]
fn cursors_need_a_scanout_and_a_resource_of_their_size() {
    let mut guest = Guest::new();
    guest.ok(command::RESOURCE_CREATE_2D, &[1, BGRX, 64, 65]);
    guest.ok(command::RESOURCE_CREATE_2D, &[2, BGRX, 32, 128]);
    let update = command::UPDATE_CURSOR;
    for (words, expected) in [
        ([16, 0, 0, 0, 1, 0, 0, 0], response::ERR_INVALID_SCANOUT_ID),
        ([0, 0, 0, 0, 1, 0, 0, 0], response::ERR_INVALID_PARAMETER),
        ([0, 0, 0, 0, 2, 0, 0, 0], response::ERR_INVALID_PARAMETER),
        ([0, 0, 0, 0, 3, 0, 0, 0], response::ERR_INVALID_RESOURCE_ID),
    ] {
        assert_eq!(guest.cursor(update, &words), expected, "{words:?}");
    }
    let short = guest.cursor(command::MOVE_CURSOR, &[0, 0]);
    assert_eq!(short, response::ERR_INVALID_PARAMETER);
    assert!(guest.updates().is_empty());
}

#[test]
fn a_new_driver_counts_from_one_again() {
    let mut guest = Guest::with_resource();
    guest.ok(command::SET_SCANOUT, &[0, 0, 64, 64, 0, 1]);
    guest.state.reset();
    assert_eq!(guest.state.scanouts.active_scanouts().count(), 0);
    guest.ok(command::RESOURCE_CREATE_2D, &[1, BGRX, WIDTH, HEIGHT]);
}
