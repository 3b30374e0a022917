// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The functions of OpenGL that the checks use.

use std::ffi::{CStr, c_char, c_float, c_int, c_uint, c_void};
use std::ptr::NonNull;

use anyhow::ensure;

const VERSION: c_uint = 0x1f02;
const RENDERER: c_uint = 0x1f01;

macro_rules! functions {
    ($($name:ident = $symbol:literal ($($argument:ty),*) $(-> $result:ty)?;)*) => {
        /// Functions of the current context.
        #[derive(Clone, Copy)]
        pub(crate) struct Gl {
            $(pub(crate) $name: unsafe extern "C" fn($($argument),*) $(-> $result)?,)*
        }

        impl Gl {
            /// Finds them.
            pub(crate) fn load(
                find: impl Fn(&CStr) -> anyhow::Result<NonNull<c_void>>,
            ) -> anyhow::Result<Self> {
                Ok(Self {
                    $($name: {
                        let function = find($symbol)?;
                        // SAFETY: the type is that of the function of this name (OpenGL 4.6, core profile).
                        unsafe {
                            std::mem::transmute::<
                                NonNull<c_void>,
                                unsafe extern "C" fn($($argument),*) $(-> $result)?,
                            >(function)
                        }
                    },)*
                })
            }
        }
    };
}

functions! {
    get_string = c"glGetString"(c_uint) -> *const c_char;
    get_error = c"glGetError"() -> c_uint;
    finish_all = c"glFinish"();
    gen_framebuffers = c"glGenFramebuffers"(c_int, *mut c_uint);
    bind_framebuffer = c"glBindFramebuffer"(c_uint, c_uint);
    gen_renderbuffers = c"glGenRenderbuffers"(c_int, *mut c_uint);
    bind_renderbuffer = c"glBindRenderbuffer"(c_uint, c_uint);
    renderbuffer_storage = c"glRenderbufferStorage"(c_uint, c_uint, c_int, c_int);
    framebuffer_renderbuffer = c"glFramebufferRenderbuffer"(c_uint, c_uint, c_uint, c_uint);
    check_framebuffer_status = c"glCheckFramebufferStatus"(c_uint) -> c_uint;
    viewport = c"glViewport"(c_int, c_int, c_int, c_int);
    enable = c"glEnable"(c_uint);
    clear_color = c"glClearColor"(c_float, c_float, c_float, c_float);
    clear = c"glClear"(c_uint);
    read_pixels = c"glReadPixels"(c_int, c_int, c_int, c_int, c_uint, c_uint, *mut c_void);
    create_shader = c"glCreateShader"(c_uint) -> c_uint;
    shader_source = c"glShaderSource"(c_uint, c_int, *const *const c_char, *const c_int);
    compile_shader = c"glCompileShader"(c_uint);
    create_program = c"glCreateProgram"() -> c_uint;
    attach_shader = c"glAttachShader"(c_uint, c_uint);
    link_program = c"glLinkProgram"(c_uint);
    get_program = c"glGetProgramiv"(c_uint, c_uint, *mut c_int);
    use_program = c"glUseProgram"(c_uint);
    get_uniform_location = c"glGetUniformLocation"(c_uint, *const c_char) -> c_int;
    uniform = c"glUniform1f"(c_int, c_float);
    gen_vertex_arrays = c"glGenVertexArrays"(c_int, *mut c_uint);
    bind_vertex_array = c"glBindVertexArray"(c_uint);
    draw_arrays = c"glDrawArrays"(c_uint, c_int, c_int);
    gen_buffers = c"glGenBuffers"(c_int, *mut c_uint);
    bind_buffer = c"glBindBuffer"(c_uint, c_uint);
    buffer_storage = c"glBufferStorage"(c_uint, isize, *const c_void, c_uint);
    map_buffer_range = c"glMapBufferRange"(c_uint, isize, isize, c_uint) -> *mut c_void;
    copy_buffer_sub_data = c"glCopyBufferSubData"(c_uint, c_uint, isize, isize, isize);
}

impl Gl {
    fn string(&self, name: c_uint) -> String {
        // SAFETY: the context is current; the result is null or a static string.
        let text = unsafe { (self.get_string)(name) };
        match text.is_null() {
            true => String::new(),
            // SAFETY: as above.
            false => unsafe { CStr::from_ptr(text) }
                .to_string_lossy()
                .into_owned(),
        }
    }

    /// The version, with the driver's.
    pub(crate) fn version(&self) -> String {
        self.string(VERSION)
    }

    /// Who draws.
    pub(crate) fn renderer(&self) -> String {
        self.string(RENDERER)
    }

    /// Waits until all is drawn.
    pub(crate) fn finish(&self) {
        // SAFETY: the context is current.
        unsafe { (self.finish_all)() }
    }

    /// Fails after a call that failed.
    pub(crate) fn check(&self, what: &str) -> anyhow::Result<()> {
        // SAFETY: the context is current.
        let error = unsafe { (self.get_error)() };
        ensure!(error == 0, "{what} fails: error {error:#x}");
        Ok(())
    }
}
