//! NumPy's npy, versions 1 to 3: <https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html>.

use std::fs::File;
use std::io::{BufReader, Read};
use std::path::Path;

use super::super::ImportError;
use super::array::{Array, Number};

/// Longest header, bytes; NumPy itself writes a few hundred.
const MAX_HEADER: usize = 1 << 16;

pub(super) fn open(path: &Path) -> Result<Array, ImportError> {
    let failed = |source| ImportError::Read { file: path.to_owned(), line: 0, source };
    let format = |reason: String| ImportError::Format { file: path.to_owned(), reason };
    let mut file = BufReader::with_capacity(1 << 16, File::open(path).map_err(failed)?);
    let mut start = [0; 8];
    file.read_exact(&mut start).map_err(failed)?;
    let mut length = [0; 4];
    file.read_exact(if start[6] == 1 { &mut length[..2] } else { &mut length[..] }).map_err(failed)?;
    let length = u32::from_le_bytes(length) as usize;
    if length > MAX_HEADER {
        return Err(format(format!("its header has {length} bytes: this is no npy file")));
    }
    let mut header = vec![0; length];
    file.read_exact(&mut header).map_err(failed)?;
    let (number, shape) = parse(&String::from_utf8_lossy(&header)).map_err(format)?;
    Ok(Array::new(path, file, number, shape))
}

/// The header is a Python dictionary with the keys `descr`, `fortran_order` and `shape`.
fn parse(header: &str) -> Result<(Number, (usize, usize)), String> {
    let after = |key: &str| {
        let (_, rest) = header.split_once(&format!("'{key}':")).ok_or(format!("its header has no {key}"))?;
        Ok::<_, String>(rest.trim_start())
    };
    let kind = after("descr")?;
    let number = match kind.get(1..4) {
        Some("<f2") => Number::F16,
        Some("<f4") => Number::F32,
        Some("<f8") => Number::F64,
        _ => return Err("it holds other than little-endian floats: save it as float32".to_owned()),
    };
    if !after("fortran_order")?.starts_with("False") {
        return Err("it is stored by columns: save numpy.ascontiguousarray of it".to_owned());
    }
    let shape = after("shape")?;
    let inside = shape.strip_prefix('(').and_then(|s| s.split_once(')')).map(|(inside, _)| inside);
    let sizes = inside.unwrap_or_default().split(',').map(str::trim).filter(|s| !s.is_empty());
    match sizes.map(str::parse).collect::<Result<Vec<usize>, _>>().as_deref() {
        Ok([rows, width]) => Ok((number, (*rows, *width))),
        _ => Err("it is no matrix: expected one row an item".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_are_read_or_refused_with_the_remedy() {
        let header = |kind: &str, order: &str, shape: &str| {
            parse(&format!("{{'descr': '{kind}', 'fortran_order': {order}, 'shape': {shape}, }}   \n"))
        };
        assert_eq!(header("<f4", "False", "(12, 3)"), Ok((Number::F32, (12, 3))));
        assert_eq!(header("<f8", "False", "(0, 3)"), Ok((Number::F64, (0, 3))));
        assert!(header(">f4", "False", "(12, 3)").is_err_and(|e| e.contains("float32")));
        assert!(header("<i8", "False", "(12, 3)").is_err());
        assert!(header("<f4", "True", "(12, 3)").is_err_and(|e| e.contains("ascontiguousarray")));
        assert!(header("<f4", "False", "(12,)").is_err_and(|e| e.contains("no matrix")));
        assert!(parse("").is_err());
    }
}
