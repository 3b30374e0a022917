// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Blobs of the host's memory with a copy in the guest's, which the library would create and never copy to.

use anyhow::Context as _;
use frontend::gpu::ResponseKind;
use virtio_bindings::virtio_gpu as v;

use super::rig::{CONTEXT, CREATE_BLOB, PAGE, Rig, create_blob};

#[test]
fn blob_with_a_copy_in_the_guest_is_an_invalid_parameter() -> anyhow::Result<()> {
    let mut rig = Rig::with_blobs(0, PAGE)?;
    let memory = v::VIRTIO_GPU_BLOB_MEM_HOST3D_GUEST;
    let flags = v::VIRTIO_GPU_BLOB_FLAG_USE_MAPPABLE;
    let address = rig
        .gpu
        .memory()
        .regions()
        .first()
        .map(|it| it.guest_address);
    let address = address.context("no memory")?;
    let [low, high] = [address as u32, (address >> 32) as u32];
    // One entry of the guest's memory: its address and length.
    let words = [1, memory, flags, 1, 0, 0, PAGE, 0, low, high, PAGE, 0];
    let response = rig.gpu.command_on(CONTEXT, CREATE_BLOB, &words)?;
    assert_eq!(response.kind, ResponseKind::ErrInvalidParameter);
    rig.wait_said("with a copy in the guest's")?;
    // Nothing has taken its id, and the context goes on.
    create_blob(&mut rig.gpu, 1, PAGE);
    rig.finish();
    Ok(())
}
