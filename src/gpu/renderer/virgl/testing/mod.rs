//! What tests and fuzz targets use in place of virglrenderer.

pub(crate) mod fake_virglrenderer;
