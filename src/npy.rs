//! NumPy's file format for float32 arrays.

use std::fs::File;
use std::io::{Cursor, Read};
use std::os::unix::fs::FileTypeExt;
use std::path::Path;

use ndarray::{ArrayD, IxDyn};
use ndarray_npy::npy::header::Header;
use ndarray_npy::{ReadNpyExt, WriteNpyExt};

/// The first bytes of every .npy file.
const MAGIC: &[u8] = b"\x93NUMPY";

/// The longest header that is read, as in NumPy (`max_header_size` of `numpy.load`).
const MAX_HEADER_LEN: usize = 10_000;

/// The deepest nesting in a header that is read: a dictionary with a list of tuples. The parser is recursive.
const MAX_BRACKETS: usize = 64;

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
    check(bytes).map_err(NpyError)?;
    let array = ArrayD::<f32>::read_npy(bytes).map_err(|error| NpyError(error.to_string()))?;
    Ok(array.as_standard_layout().into_owned())
}

/// The type, the shape and the values of an array of any type.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Description {
    /// NumPy's name of the type.
    pub(crate) dtype: String,
    /// The lengths of the axes.
    pub(crate) shape: Vec<usize>,
    /// The smallest and the largest value; `None` for other types than floats and bytes, and without values.
    pub(crate) range: Option<[f32; 2]>,
}

/// Describes a .npy file of any type; `None` if it is not one or is damaged, which [`parse`] reports.
pub(crate) fn describe(bytes: &[u8]) -> Option<Description> {
    check_beginning(bytes).ok()?;
    let mut data = bytes;
    let header = Header::from_reader(&mut data).ok()?;
    let descriptor = header.type_descriptor.to_string();
    let descriptor = descriptor.trim_matches('\'');
    let value_len: usize = descriptor.get(2..)?.parse().ok()?;
    let needed = header.shape.iter().try_fold(value_len, |bytes, length| bytes.checked_mul(*length))?;
    if needed != data.len() {
        return None;
    }
    let dtype = dtype_name(descriptor);
    let range = match dtype.as_str() {
        "uint8" => range(data.iter().map(|value| f32::from(*value))),
        "float32" => ArrayD::<f32>::read_npy(bytes).ok().and_then(|array| range(array.iter().copied())),
        "float64" => ArrayD::<f64>::read_npy(bytes)
            .ok()
            .and_then(|array| range(array.iter().map(|value| *value as f32))),
        _ => None,
    };
    Some(Description { dtype, shape: header.shape, range })
}

fn range(values: impl Iterator<Item = f32>) -> Option<[f32; 2]> {
    values.fold(None, |range, value| {
        let [min, max] = range.unwrap_or([value, value]);
        Some([min.min(value), max.max(value)])
    })
}

/// Reads a .npy file into an array in row-major order.
pub fn read(path: &Path) -> Result<ArrayD<f32>, NpyError> {
    let fault = |reason: String| NpyError(format!("{}: {reason}", path.display()));
    let mut file = File::open(path).map_err(|error| fault(error.to_string()))?;
    // A device such as /dev/zero has no end.
    if file.metadata().is_ok_and(|metadata| metadata.file_type().is_char_device()) {
        return Err(fault("this is a device; name a .npy file".to_owned()));
    }
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes).map_err(|error| fault(error.to_string()))?;
    parse(&bytes).map_err(|NpyError(reason)| fault(reason))
}

/// Checks the header against the file's length before anything is allocated: a small file may declare any shape.
fn check(bytes: &[u8]) -> Result<(), String> {
    check_beginning(bytes)?;
    let mut data = bytes;
    let header = Header::from_reader(&mut data).map_err(|error| format!("the header is invalid: {error}"))?;
    let dtype = header.type_descriptor.to_string();
    let dtype = dtype.trim_matches('\'');
    if !matches!(dtype, "<f4" | ">f4") {
        return Err(format!(
            "the array has dtype {}, but float32 is needed; convert it with array.astype(\"float32\")",
            dtype_name(dtype)
        ));
    }
    let (shape, found) = (&header.shape, data.len());
    let needed = shape.iter().try_fold(size_of::<f32>(), |bytes, length| bytes.checked_mul(*length));
    match needed {
        Some(needed) if needed == found => Ok(()),
        Some(needed) => Err(format!(
            "shape {shape:?} needs {needed} bytes of values, but the file has {found}; write it again"
        )),
        None => Err(format!("shape {shape:?} is too large")),
    }
}

/// Checks what comes before the values.
fn check_beginning(bytes: &[u8]) -> Result<(), String> {
    if bytes.is_empty() {
        return Err("it is empty; write a .npy file with numpy.save".to_owned());
    }
    if !bytes.starts_with(MAGIC) {
        return Err("this is not a .npy file; write one with numpy.save".to_owned());
    }
    let text = header_text(bytes).ok_or("the file is cut off in its header; write it again")?;
    let brackets = text.iter().filter(|byte| b"([{".contains(byte)).count();
    if text.len() > MAX_HEADER_LEN || brackets > MAX_BRACKETS {
        return Err("the header is not that of a float32 array".to_owned());
    }
    Ok(())
}

/// The dictionary that describes the array; `None` if the file ends before it does.
fn header_text(bytes: &[u8]) -> Option<&[u8]> {
    let rest = bytes.get(MAGIC.len()..)?;
    match rest.first()? {
        1 => {
            let length = u16::from_le_bytes(rest.get(2..4)?.try_into().ok()?);
            rest.get(4..4 + usize::from(length))
        }
        _ => {
            let length = u32::from_le_bytes(rest.get(2..6)?.try_into().ok()?);
            rest.get(6..)?.get(..length as usize)
        }
    }
}

/// NumPy's name of a type descriptor such as `<f8`.
fn dtype_name(descriptor: &str) -> String {
    let (kind, bytes) = match descriptor.trim_start_matches(['<', '>', '=', '|']).split_at_checked(1) {
        Some((kind, bytes)) => (kind, bytes.parse::<u32>().ok()),
        None => ("", None),
    };
    match (kind, bytes) {
        ("f", Some(n)) => format!("float{}", 8 * n),
        ("i", Some(n)) => format!("int{}", 8 * n),
        ("u", Some(n)) => format!("uint{}", 8 * n),
        ("c", Some(n)) => format!("complex{}", 8 * n),
        ("b", Some(1)) => "bool".to_owned(),
        ("O", _) => "object".to_owned(),
        _ => descriptor.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(header: &str, data: &[u8]) -> Vec<u8> {
        let text = format!("{header}\n");
        let length = u16::try_from(text.len()).unwrap().to_le_bytes();
        [MAGIC, &[1, 0], &length, text.as_bytes(), data].concat()
    }

    fn fault(bytes: &[u8]) -> String {
        parse(bytes).unwrap_err().to_string()
    }

    #[test]
    fn a_device_without_end_is_an_error() {
        let error = read(Path::new("/dev/zero")).unwrap_err().to_string();
        assert_eq!(error, "/dev/zero: this is a device; name a .npy file");
    }

    #[test]
    fn written_arrays_are_read_in_row_major_order() {
        let values = [1.0, -2.0, 3.5, 0.0, 7.0, 8.0];
        let array = parse(&write(&[2, 3], &values).unwrap()).unwrap();
        assert_eq!((array.shape(), array.as_slice().unwrap()), (&[2, 3][..], &values[..]));
        let columns: Vec<u8> =
            [1.0_f32, 0.0, -2.0, 7.0, 3.5, 8.0].iter().flat_map(|x| x.to_be_bytes()).collect();
        let array =
            parse(&file("{'descr': '>f4', 'fortran_order': True, 'shape': (2, 3), }", &columns)).unwrap();
        assert_eq!((array.shape(), array.as_slice().unwrap()), (&[2, 3][..], &values[..]));
    }

    #[test]
    fn a_file_that_is_no_float32_array_is_described() {
        for (bytes, expected) in [
            (&b""[..], "it is empty; write a .npy file with numpy.save"),
            (b"\x89PNG\r\n\x1a\n", "this is not a .npy file; write one with numpy.save"),
            (MAGIC, "the file is cut off in its header; write it again"),
            (
                &file("{'descr': '<f8', 'fortran_order': False, 'shape': (2,), }", &[0; 16]),
                "the array has dtype float64, but float32 is needed; convert it with array.astype(\"float32\")",
            ),
            (
                &file("{'descr': '|b1', 'fortran_order': False, 'shape': (2,), }", &[0; 2]),
                "the array has dtype bool, but float32 is needed; convert it with array.astype(\"float32\")",
            ),
            (
                &file("{'descr': '<f4', 'fortran_order': False, 'shape': (2, 3), }", &[0; 20]),
                "shape [2, 3] needs 24 bytes of values, but the file has 20; write it again",
            ),
        ] {
            assert_eq!(fault(bytes), expected);
        }
    }

    #[test]
    fn a_small_file_that_declares_a_huge_or_deep_array_is_refused_before_it_is_read() {
        let huge = file("{'descr': '<f4', 'fortran_order': False, 'shape': (1000000, 1000000), }", &[]);
        assert!(
            fault(&huge).starts_with("shape [1000000, 1000000] needs 4000000000000 bytes"),
            "{}",
            fault(&huge)
        );
        let beyond = "{'descr': '<f4', 'fortran_order': False, 'shape': (9000000000000000000, 9), }";
        assert_eq!(fault(&file(beyond, &[])), "shape [9000000000000000000, 9] is too large");
        assert_eq!(fault(&file(&"(".repeat(9000), &[])), "the header is not that of a float32 array");
    }
}
