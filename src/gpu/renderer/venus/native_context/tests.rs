// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Native contexts with a fake library.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::*;
use crate::gpu::protocol::{BlobMemory, ResourceCreateBlob, RingId};
use crate::gpu::renderer::venus::fences::RetiredFences;
use crate::gpu::renderer::venus::library::Library;
use crate::gpu::renderer::venus::library_thread::LibraryThread;
use crate::gpu::renderer::venus::render_server::RenderServer;
use crate::gpu::renderer::venus::renewal::Renewal;
use crate::gpu::renderer::venus::testing::{self, DMABUF, MEMFD, STUCK};
use crate::gpu::renderer::{ContextError, Renderer as _, Renderer3d as _};
use crate::gpu::resource::ResourceError;

const DRM: u32 = CapsetInfo::DRM;

fn renderer(budget: &Budget) -> VenusRenderer {
    let share = testing::share_state();
    let retired = Arc::new(RetiredFences::new().unwrap());
    let starting = LibraryThread::start(Arc::clone(&retired), false, move |retired| {
        share();
        Library::open_native(testing::api(), None, PathBuf::from("/dev/null"), retired)
    });
    let library = starting.unwrap().wait(Duration::from_secs(60));
    let mut library = library.unwrap().unwrap();
    library.set_patience(testing::PATIENCE);
    let capset = library.capset(DRM).unwrap().unwrap();
    VenusRenderer::with_library(
        library,
        RenderServer::here(),
        Renewal::impossible(retired),
        capset,
        "a fake".to_owned(),
        budget.clone(),
        GuestMemory::new(Default::default()),
    )
    .unwrap()
}

fn blob(id: u32, context: u32, blob_id: u64) -> ResourceCreateBlob {
    ResourceCreateBlob {
        id,
        memory: BlobMemory::Host3d,
        count: 0,
        len: 4096,
        flags: 1,
        context,
        blob_id,
    }
}

#[test]
fn contexts_are_native_and_share_dmabufs() {
    let budget = Budget::new(64 << 20);
    let mut renderer = renderer(&budget);
    assert_eq!(renderer.capset(DRM, 0), Some(vec![0x5a; 160]));
    for capset in [0, 2, CapsetInfo::VENUS] {
        let error = renderer.create_context(1, b"", capset).unwrap_err();
        assert!(matches!(error, ContextError::Capset { .. }), "{error}");
    }
    for id in [1, 2] {
        renderer.create_context(id, b"", DRM).unwrap();
    }
    renderer.create_blob(&blob(5, 1, DMABUF), None).unwrap();
    renderer.create_blob(&blob(6, 1, MEMFD), None).unwrap();
    assert_eq!(renderer.host_memory(5).unwrap().len, 4096);
    renderer.attach_resource(2, 5).unwrap();
    let error = renderer.attach_resource(2, 6).unwrap_err();
    assert!(
        matches!(error, ContextError::NotShareable { .. }),
        "{error}"
    );
    let ring = RingId {
        context: 2,
        index: 1,
    };
    renderer.submit(2, &mut [7, 8]).unwrap();
    let fence = renderer.fence(Some(ring)).unwrap();
    renderer.poll_fences();
    assert!(!renderer.is_retired(fence));
    testing::retire(|_| true);
    renderer.poll_fences();
    assert!(renderer.is_retired(fence));
    renderer.reset();
    assert_eq!(testing::population(), (vec![], vec![]));
    assert_eq!(budget.used(), 0);
}

#[test]
fn screen_goes_on_when_the_driver_of_the_gpu_hangs() {
    let mut renderer = renderer(&Budget::new(64 << 20));
    renderer.create_context(1, b"", DRM).unwrap();
    assert!(renderer.submit(1, &mut [STUCK]).is_err());
    renderer.poll_fences();
    assert_eq!(
        renderer.name(),
        Some("the native context is lost: the GPU's driver does not answer")
    );
    let error = renderer.create_context(2, b"", DRM).unwrap_err();
    assert!(matches!(error, ContextError::ServerEnded), "{error}");
    let size = crate::geometry::Size::new(8, 8);
    let format = crate::gpu::protocol::Format::B8G8R8X8;
    renderer.create_2d(9, format, size).unwrap();
    assert!(matches!(
        renderer.create_blob(&blob(7, 1, MEMFD), None),
        Err(ResourceError::NoContext { .. })
    ));
}
