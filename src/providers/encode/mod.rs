//! Request bodies of providers, built from slices of the client's bytes. No I/O and no runtime.

mod multipart;

pub(crate) use multipart::{Form, FormFile};
