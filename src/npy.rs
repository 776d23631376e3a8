//! NumPy's file format for float32 arrays.

use std::io::{BufReader, Cursor, Read};
use std::path::Path;

use ndarray::{ArrayD, IxDyn};
use ndarray_npy::{ReadNpyExt, WriteNpyExt};

/// Why an array can't be read or written.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct NpyError(String);

/// Encodes row-major values of this shape as a .npy file.
pub fn write(shape: &[usize], values: &[f32]) -> Result<Vec<u8>, NpyError> {
    let array =
        ArrayD::from_shape_vec(IxDyn(shape), values.to_vec()).map_err(|error| NpyError(error.to_string()))?;
    let mut bytes = Cursor::new(Vec::new());
    array.write_npy(&mut bytes).map_err(|error| NpyError(error.to_string()))?;
    Ok(bytes.into_inner())
}

/// Decodes a .npy file's bytes into an array in row-major order.
pub fn parse(bytes: &[u8]) -> Result<ArrayD<f32>, NpyError> {
    decode(bytes)
}

/// Reads a .npy file into an array in row-major order.
pub fn read(path: &Path) -> Result<ArrayD<f32>, NpyError> {
    let fault = |reason: String| NpyError(format!("{}: {reason}", path.display()));
    let file = std::fs::File::open(path).map_err(|error| fault(error.to_string()))?;
    decode(BufReader::new(file)).map_err(|NpyError(reason)| fault(reason))
}

fn decode(reader: impl Read) -> Result<ArrayD<f32>, NpyError> {
    let array = ArrayD::<f32>::read_npy(reader)
        .map_err(|error| NpyError(format!("{error}; a float32 array is needed")))?;
    Ok(array.as_standard_layout().into_owned())
}
