// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The first Vulkan device, and buffers in memory that it shares with the processor.

use std::slice;

use anyhow::{Context as _, ensure};
use ash::vk;

/// How long the device may take for one submission, on an emulated processor: nanoseconds.
const PATIENCE: u64 = 120_000_000_000;
const COHERENT: vk::MemoryPropertyFlags = vk::MemoryPropertyFlags::from_raw(
    vk::MemoryPropertyFlags::HOST_VISIBLE.as_raw()
        | vk::MemoryPropertyFlags::HOST_COHERENT.as_raw(),
);

/// The first device, with one queue.
pub(crate) struct Gpu {
    // Loaded as long as what came from it is used.
    _library: ash::Entry,
    instance: ash::Instance,
    device: ash::Device,
    name: String,
    memory: vk::PhysicalDeviceMemoryProperties,
    queue: vk::Queue,
    pool: vk::CommandPool,
}

impl Gpu {
    pub(crate) fn open() -> anyhow::Result<Self> {
        // SAFETY: the library is the system's loader, whose initializers have no needs of their own.
        let library = unsafe { ash::Entry::load() }.context("cannot load libvulkan.so.1")?;
        let application = vk::ApplicationInfo::default().api_version(vk::API_VERSION_1_1);
        let info = vk::InstanceCreateInfo::default().application_info(&application);
        // SAFETY: what the structures point to outlives the call; the instance is destroyed in `drop`, after all else.
        let instance = unsafe { library.create_instance(&info, None) }.context("no instance")?;
        // SAFETY: the instance is valid.
        let devices = unsafe { instance.enumerate_physical_devices() }.context("no devices")?;
        let physical = *devices.first().context("there is no Vulkan device")?;
        // SAFETY: the device is one of this instance.
        let (properties, memory, families) = unsafe {
            (
                instance.get_physical_device_properties(physical),
                instance.get_physical_device_memory_properties(physical),
                instance.get_physical_device_queue_family_properties(physical),
            )
        };
        let family = families
            .iter()
            .position(|family| family.queue_flags.contains(vk::QueueFlags::GRAPHICS))
            .context("the device has no graphics queue")?;
        let family = u32::try_from(family)?;
        let queues = [vk::DeviceQueueCreateInfo::default()
            .queue_family_index(family)
            .queue_priorities(&[1.0])];
        let info = vk::DeviceCreateInfo::default().queue_create_infos(&queues);
        // SAFETY: as for the instance.
        let device =
            unsafe { instance.create_device(physical, &info, None) }.context("no device")?;
        let info = vk::CommandPoolCreateInfo::default().queue_family_index(family);
        // SAFETY: the family and its first queue are those that the device was created with.
        let (queue, pool) = unsafe {
            (
                device.get_device_queue(family, 0),
                device.create_command_pool(&info, None),
            )
        };
        let name = properties.device_name_as_c_str()?;
        Ok(Self {
            name: name.to_string_lossy().into_owned(),
            memory,
            queue,
            pool: pool.context("no pool of commands")?,
            device,
            instance,
            _library: library,
        })
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// Fills the whole buffer and waits for it.
    pub(crate) fn fill(&self, buffer: &HostBuffer<'_>, word: u32) -> anyhow::Result<()> {
        self.submit(|commands| {
            // SAFETY: the buffer lives until the commands are done; its size is a multiple of 4.
            unsafe {
                self.device
                    .cmd_fill_buffer(commands, buffer.buffer, 0, vk::WHOLE_SIZE, word);
            }
        })
    }

    /// Copies a whole buffer into another one of its size and waits for it.
    pub(crate) fn copy(&self, from: &HostBuffer<'_>, to: &HostBuffer<'_>) -> anyhow::Result<()> {
        ensure!(from.size == to.size, "buffers of different sizes");
        let regions = [vk::BufferCopy::default().size(from.size as u64)];
        self.submit(|commands| {
            // SAFETY: both buffers live until the commands are done, and have the region's size.
            unsafe {
                self.device
                    .cmd_copy_buffer(commands, from.buffer, to.buffer, &regions);
            }
        })
    }

    /// Has the device do what is recorded, and waits for it.
    fn submit(&self, record: impl FnOnce(vk::CommandBuffer)) -> anyhow::Result<()> {
        let info = vk::CommandBufferAllocateInfo::default()
            .command_pool(self.pool)
            .command_buffer_count(1);
        let begin = vk::CommandBufferBeginInfo::default()
            .flags(vk::CommandBufferUsageFlags::ONE_TIME_SUBMIT);
        // What the processor reads next.
        let barrier = [vk::MemoryBarrier::default()
            .src_access_mask(vk::AccessFlags::TRANSFER_WRITE)
            .dst_access_mask(vk::AccessFlags::HOST_READ)];
        // SAFETY: all objects are of this device, used by this thread alone, and freed after the fence says that they are
        // out of use. If the wait fails they leak, and the program ends.
        unsafe {
            let commands = self.device.allocate_command_buffers(&info)?;
            let first = *commands.first().context("no command buffer")?;
            self.device.begin_command_buffer(first, &begin)?;
            record(first);
            self.device.cmd_pipeline_barrier(
                first,
                vk::PipelineStageFlags::TRANSFER,
                vk::PipelineStageFlags::HOST,
                vk::DependencyFlags::empty(),
                &barrier,
                &[],
                &[],
            );
            self.device.end_command_buffer(first)?;
            let fence = self
                .device
                .create_fence(&vk::FenceCreateInfo::default(), None)?;
            let submit = [vk::SubmitInfo::default().command_buffers(&commands)];
            self.device.queue_submit(self.queue, &submit, fence)?;
            self.device
                .wait_for_fences(&[fence], true, PATIENCE)
                .context("the device does not finish")?;
            self.device.destroy_fence(fence, None);
            self.device.free_command_buffers(self.pool, &commands);
        }
        Ok(())
    }
}

impl Drop for Gpu {
    fn drop(&mut self) {
        // SAFETY: buffers borrow this, so none is left; every submission was waited for.
        unsafe {
            self.device.destroy_command_pool(self.pool, None);
            self.device.destroy_device(None);
            self.instance.destroy_instance(None);
        }
    }
}

/// A buffer whose memory is mapped.
pub(crate) struct HostBuffer<'a> {
    gpu: &'a Gpu,
    buffer: vk::Buffer,
    memory: vk::DeviceMemory,
    words: *mut u32,
    size: usize,
}

impl<'a> HostBuffer<'a> {
    /// Of `size` bytes, a multiple of 4.
    pub(crate) fn new(gpu: &'a Gpu, size: usize) -> anyhow::Result<Self> {
        ensure!(size > 0 && size % 4 == 0, "{size} bytes are no words");
        let info = vk::BufferCreateInfo::default()
            .size(size as u64)
            .usage(vk::BufferUsageFlags::TRANSFER_SRC | vk::BufferUsageFlags::TRANSFER_DST);
        // SAFETY: all objects are of this device; what fails leaks until the program ends at once. The memory is of a type
        // that the buffer can have and that can be mapped.
        let (buffer, memory, words) = unsafe {
            let buffer = gpu.device.create_buffer(&info, None).context("no buffer")?;
            let needs = gpu.device.get_buffer_memory_requirements(buffer);
            let memory_type = gpu
                .memory
                .memory_types_as_slice()
                .iter()
                .enumerate()
                .position(|(index, memory)| {
                    needs.memory_type_bits >> index & 1 == 1
                        && memory.property_flags.contains(COHERENT)
                })
                .context("no memory that the processor can read")?;
            let info = vk::MemoryAllocateInfo::default()
                .allocation_size(needs.size)
                .memory_type_index(u32::try_from(memory_type)?);
            let memory = gpu
                .device
                .allocate_memory(&info, None)
                .context("no memory")?;
            gpu.device
                .bind_buffer_memory(buffer, memory, 0)
                .context("cannot use the memory")?;
            let words = gpu
                .device
                .map_memory(memory, 0, vk::WHOLE_SIZE, vk::MemoryMapFlags::empty())
                .context("cannot map the memory")?;
            (buffer, memory, words.cast::<u32>())
        };
        Ok(Self {
            gpu,
            buffer,
            memory,
            words,
            size,
        })
    }

    /// What lies in it.
    pub(crate) fn words(&mut self) -> anyhow::Result<&mut [u32]> {
        ensure!(self.words.is_aligned(), "mapped at {:?}", self.words);
        // SAFETY: the memory is mapped as long as this lives, has at least this size, and every submission that uses it was
        // waited for.
        Ok(unsafe { slice::from_raw_parts_mut(self.words, self.size / 4) })
    }
}

impl Drop for HostBuffer<'_> {
    fn drop(&mut self) {
        // SAFETY: the device has finished with both; the memory is unmapped by being freed.
        unsafe {
            self.gpu.device.destroy_buffer(self.buffer, None);
            self.gpu.device.free_memory(self.memory, None);
        }
    }
}
