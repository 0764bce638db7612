//! A matrix of numbers in a file, row by row.

use std::fs::File;
use std::io::{BufReader, Read};
use std::path::{Path, PathBuf};

use super::super::ImportError;

/// How a number is stored, little-endian.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Number {
    F16,
    Bf16,
    F32,
    F64,
}

impl Number {
    pub(super) fn bytes(self) -> usize {
        match self {
            Self::F16 | Self::Bf16 => 2,
            Self::F32 => 4,
            Self::F64 => 8,
        }
    }

    /// All numbers of a row.
    fn decode(self, bytes: &[u8]) -> Vec<f32> {
        let halves = || bytes.as_chunks().0.iter().map(|b| u16::from_le_bytes(*b));
        match self {
            Self::F16 => halves().map(half).collect(),
            Self::Bf16 => halves().map(|h| f32::from_bits(u32::from(h) << 16)).collect(),
            Self::F32 => bytes.as_chunks().0.iter().map(|b| f32::from_le_bytes(*b)).collect(),
            Self::F64 => bytes.as_chunks().0.iter().map(|b| f64::from_le_bytes(*b) as f32).collect(),
        }
    }
}

/// IEEE 754 binary16 to f32, exactly.
fn half(h: u16) -> f32 {
    let (exponent, fraction) = (i32::from(h >> 10 & 0x1f), f32::from(h & 0x3ff));
    let size = match exponent {
        0 => fraction * 2f32.powi(-24),
        31 if fraction == 0.0 => f32::INFINITY,
        31 => f32::NAN,
        _ => (1024.0 + fraction) * 2f32.powi(exponent - 25),
    };
    if h >> 15 == 0 { size } else { -size }
}

/// Rows of numbers, one after another from here to the end of the matrix.
pub(super) struct Array {
    pub(super) rows: usize,
    pub(super) width: usize,
    path: PathBuf,
    file: BufReader<File>,
    number: Number,
    row: u64,
}

impl Array {
    /// The file stands at the first number.
    pub(super) fn new(
        path: &Path,
        file: BufReader<File>,
        number: Number,
        (rows, width): (usize, usize),
    ) -> Self {
        Self { rows, width, path: path.to_owned(), file, number, row: 0 }
    }

    /// The next row; call it at most `rows` times.
    pub(super) fn next(&mut self) -> Result<Vec<f32>, ImportError> {
        let mut bytes = vec![0; self.width * self.number.bytes()];
        let (line, path) = (self.row, &self.path);
        let failed = |source| ImportError::Read { file: path.clone(), line, source };
        self.file.read_exact(&mut bytes).map_err(failed)?;
        self.row += 1;
        Ok(self.number.decode(&bytes))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn halves_are_exact() {
        for (bits, value) in [
            (0x3c00, 1.0),
            (0xc000, -2.0),
            (0x3555, 0.333_251_95),
            (0x0001, 5.960_464_5e-8),
            (0x7bff, 65504.0),
        ] {
            assert_eq!(half(bits), value);
        }
        assert!(half(0x7c01).is_nan() && half(0xfc00) == f32::NEG_INFINITY);
    }
}
