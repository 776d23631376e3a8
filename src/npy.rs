//! NumPy's file format for float32 arrays.

use std::io::Cursor;
use std::path::Path;

use ndarray::{ArrayD, IxDyn};
use ndarray_npy::{ReadNpyExt, WriteNpyExt};

/// A file that can't be read or written as float32 values.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct NpyError(String);

/// An array as the bytes of a .npy file.
pub fn write(shape: &[usize], values: &[f32]) -> Result<Vec<u8>, NpyError> {
    let array =
        ArrayD::from_shape_vec(IxDyn(shape), values.to_vec()).map_err(|error| NpyError(error.to_string()))?;
    let mut bytes = Cursor::new(Vec::new());
    array.write_npy(&mut bytes).map_err(|error| NpyError(error.to_string()))?;
    Ok(bytes.into_inner())
}

/// The float32 array in a file, in row-major order.
pub fn read(path: &Path) -> Result<ArrayD<f32>, NpyError> {
    let fault = |what: String| NpyError(format!("{}: {what}", path.display()));
    let file = std::fs::File::open(path).map_err(|error| fault(error.to_string()))?;
    let array = ArrayD::<f32>::read_npy(std::io::BufReader::new(file))
        .map_err(|error| fault(format!("{error}; a float32 array is needed")))?;
    Ok(array.as_standard_layout().into_owned())
}
