// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Commands and results as values, without bytes.

use std::io::{self, Read};

use super::*;
use crate::gpu::protocol::{
    ErrorCode, Format, ReadError, ResourceAttachBacking, ResourceCreate2d, ResourceFlush,
    SetScanout,
};
use crate::gpu::resource::ResourceError;

/// A request of which nothing after its head may be read.
struct HeadOnly {
    is_read: bool,
}

impl Read for HeadOnly {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        assert!(
            !self.is_read,
            "the device reads the data of a wrong command"
        );
        self.is_read = true;
        into.fill(0);
        Ok(into.len())
    }
}

impl RequestBytes for HeadOnly {
    fn skip(&mut self, _len: usize) -> io::Result<()> {
        panic!("the device skips data of a wrong command");
    }
}

struct Device {
    gpu: VirtioGpu,
    memory: MemoryGuard,
}

impl Device {
    fn new(renderer: impl Renderer + 'static) -> Self {
        let memory = GuestMemoryMmap::from_ranges(&[(GuestAddress(0), MEMORY as usize)]).unwrap();
        Self {
            gpu: VirtioGpu::resume(
                Box::new(renderer),
                &Resolutions::default(),
                &KeptState::default(),
            )
            .unwrap(),
            memory: GuestMemoryAtomic::new(memory).memory(),
        }
    }

    fn in_2d() -> Self {
        Self::new(SoftwareRenderer::without_memory(Budget::new(1 << 20)))
    }

    fn execute_request(
        &mut self,
        command: Result<Command, DecodeError>,
        reply: Option<DisplayReply>,
    ) -> Execution {
        let header = Header::default();
        let request = Request { header, command };
        let mut data = RequestReader::new(HeadOnly { is_read: false });
        self.gpu.execute(request, &mut data, &self.memory, reply)
    }

    fn execute(
        &mut self,
        command: Command,
        reply: Option<DisplayReply>,
    ) -> Result<CommandResult, CommandError> {
        self.execute_request(Ok(command), reply).result
    }

    #[track_caller]
    fn complete(&mut self, command: Command) {
        let result = self.execute(command, None).unwrap();
        assert_eq!(result, CommandResult::Complete(Response::OkNoData));
    }
}

fn create(id: u32) -> Command {
    Command::ResourceCreate2d(ResourceCreate2d {
        id,
        format: Format::B8G8R8X8,
        size: Size::new(WIDTH, HEIGHT),
    })
}

#[test]
fn scanouts_show_resources_until_they_are_destroyed() {
    let mut device = Device::in_2d();
    let rect = Rect::sized(WIDTH, HEIGHT);
    device.complete(create(1));
    device.complete(Command::SetScanout(SetScanout {
        rect,
        scanout: 3,
        resource: 1,
    }));
    let sizes = |device: &Device| -> Vec<_> {
        let active = device.gpu.scanouts().active_scanouts();
        active.map(|scanout| scanout.size).collect()
    };
    assert_eq!(sizes(&device), [Size::new(WIDTH, HEIGHT)]);
    device.complete(Command::ResourceFlush(ResourceFlush { rect, resource: 1 }));
    device.complete(Command::ResourceUnref { resource: 1 });
    assert_eq!(sizes(&device), []);
}

#[test]
fn errors_name_what_failed_and_have_a_code() {
    let mut device = Device::in_2d();
    device.complete(create(1));
    let error = device.execute(create(1), None).unwrap_err();
    assert!(matches!(
        error,
        CommandError::Resource(ResourceError::Exists(1))
    ));
    assert_eq!(error.code(), ErrorCode::InvalidResourceId);
    let destroy = Command::CtxDestroy { context: 1 };
    let error = device.execute(destroy, None).unwrap_err();
    assert!(matches!(error, CommandError::No3d));
    assert_eq!(error.code(), ErrorCode::Unspec);
}

#[test]
fn display_queries_are_answered_with_the_reply() {
    let mut device = Device::in_2d();
    let mut info = DisplayInfo::default();
    info.0[0].rect = Rect::sized(800, 600);
    let get = Command::GetDisplayInfo;
    assert_eq!(
        device.execute(get, None).unwrap(),
        CommandResult::NeedsDisplay(DisplayQuery::DisplayInfo)
    );
    let reply = DisplayReply::DisplayInfo(Box::new(info));
    assert_eq!(
        device.execute(get, Some(reply)).unwrap(),
        CommandResult::Complete(Response::DisplayInfo(Box::new(info)))
    );

    let get = Command::GetEdid { scanout: 2 };
    assert_eq!(
        device.execute(get, None).unwrap(),
        CommandResult::NeedsDisplay(DisplayQuery::Edid(2))
    );
    let reply = DisplayReply::Edid(vec![7; 128]);
    assert_eq!(
        device.execute(get, Some(reply)).unwrap(),
        CommandResult::Complete(Response::Edid(vec![7; 128]))
    );
}

/// A list may be long: it is read only for a command that can succeed.
#[test]
fn entries_are_read_only_for_resources_that_can_have_a_backing() {
    let mut device = Device::in_2d();
    let attach =
        |resource, count| Command::ResourceAttachBacking(ResourceAttachBacking { resource, count });
    let unknown = device.execute_request(Ok(attach(1, u32::MAX)), None);
    assert_eq!(unknown.work, 0);
    assert!(matches!(
        unknown.result,
        Err(CommandError::Resource(ResourceError::Unknown(1)))
    ));
    device.complete(create(1));
    device.complete(attach(1, 0));
    assert!(matches!(
        device.execute(attach(1, u32::MAX), None),
        Err(CommandError::Resource(ResourceError::HasBacking(1)))
    ));
}

#[cfg(feature = "virgl")]
#[test]
fn command_streams_are_read_only_within_bounds() {
    use crate::gpu::protocol::Submit3d;
    use crate::gpu::renderer::virgl::testing::fake_virglrenderer;

    let mut device = Device::new(fake_virglrenderer::renderer(Budget::new(1 << 20)));
    for size in [(4 << 20) + 4, 1, 2, 3, 5, u32::MAX] {
        let submit = Command::Submit3d(Submit3d { context: 1, size });
        let error = device.execute(submit, None).unwrap_err();
        assert!(matches!(error, CommandError::StreamLength(len) if len == size));
        assert_eq!(error.code(), ErrorCode::InvalidParameter);
    }
}

#[test]
fn requests_without_a_command_fail() {
    let mut device = Device::in_2d();
    for (error, code) in [
        (DecodeError::UnknownCommand, ErrorCode::Unspec),
        (DecodeError::NotNegotiated("a feature"), ErrorCode::Unspec),
        (DecodeError::ScanoutId(16), ErrorCode::InvalidScanoutId),
        (DecodeError::Format(5), ErrorCode::InvalidParameter),
        (DecodeError::ContextName(65), ErrorCode::InvalidParameter),
        (DecodeError::BlobMemory(4), ErrorCode::InvalidParameter),
        (DecodeError::BlobFlags(8), ErrorCode::InvalidParameter),
        (ReadError::TooShort.into(), ErrorCode::InvalidParameter),
        (ReadError::OutOfMemory.into(), ErrorCode::OutOfMemory),
    ] {
        let control = device.execute_request(Err(error), None);
        assert_eq!(control.result.unwrap_err().code(), code);
        let cursor = device.gpu.execute_cursor(Err(error));
        assert_eq!(cursor.unwrap_err().code(), code);
    }
}
