//! Bytes in order, checked.

use super::{PackedError, VERSION};

/// What is not yet read.
pub(super) struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    /// Reads the beginning of a form and checks its version.
    pub(super) fn open(
        bytes: &'a [u8],
        what: &'static str,
        begins: &'static str,
    ) -> Result<Self, PackedError> {
        let rest = bytes.strip_prefix(begins.as_bytes()).ok_or(PackedError::Magic { what, begins })?;
        let mut reader = Self(rest);
        match reader.u8("the version")? {
            VERSION => Ok(reader),
            other => Err(PackedError::Version(other)),
        }
    }

    pub(super) fn take(&mut self, count: usize, what: &'static str) -> Result<&'a [u8], PackedError> {
        let Some((taken, rest)) = self.0.split_at_checked(count) else {
            return Err(PackedError::Short { what, missing: count - self.0.len() });
        };
        self.0 = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self, what: &'static str) -> Result<[u8; N], PackedError> {
        let Some((taken, rest)) = self.0.split_first_chunk() else {
            return Err(PackedError::Short { what, missing: N - self.0.len() });
        };
        self.0 = rest;
        Ok(*taken)
    }

    pub(super) fn u8(&mut self, what: &'static str) -> Result<u8, PackedError> {
        Ok(u8::from_le_bytes(self.array(what)?))
    }

    pub(super) fn u16(&mut self, what: &'static str) -> Result<u16, PackedError> {
        Ok(u16::from_le_bytes(self.array(what)?))
    }

    pub(super) fn u32(&mut self, what: &'static str) -> Result<u32, PackedError> {
        Ok(u32::from_le_bytes(self.array(what)?))
    }

    pub(super) fn u64(&mut self, what: &'static str) -> Result<u64, PackedError> {
        Ok(u64::from_le_bytes(self.array(what)?))
    }

    pub(super) fn zero(&mut self, count: usize) -> Result<(), PackedError> {
        let zero = self.take(count, "the header")?.iter().all(|byte| *byte == 0);
        if zero { Ok(()) } else { Err(PackedError::Reserved) }
    }

    /// Numbers, all finite.
    pub(super) fn floats(&mut self, count: usize, what: &'static str) -> Result<Vec<f32>, PackedError> {
        let (numbers, _) = self.take(count * 4, what)?.as_chunks::<4>();
        let numbers: Vec<f32> = numbers.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect();
        if numbers.iter().all(|x| x.is_finite()) { Ok(numbers) } else { Err(PackedError::NotFinite) }
    }

    /// Texts of these lengths, one after the other.
    pub(super) fn texts(&mut self, lengths: &[u8], what: &'static str) -> Result<Vec<&'a str>, PackedError> {
        let all = lengths.iter().map(|length| usize::from(*length)).sum();
        let mut bytes = self.take(all, what)?;
        let mut texts = Vec::with_capacity(lengths.len());
        for (place, length) in lengths.iter().enumerate() {
            let (own, rest) = bytes.split_at(usize::from(*length));
            texts.push(utf8(own, what, Some(place))?);
            bytes = rest;
        }
        Ok(texts)
    }

    /// One text; `None` where it has no bytes.
    pub(super) fn text(&mut self, length: u8, what: &'static str) -> Result<Option<&'a str>, PackedError> {
        let text = utf8(self.take(length.into(), what)?, what, None)?;
        Ok(Some(text).filter(|text| !text.is_empty()))
    }

    pub(super) fn end(self) -> Result<(), PackedError> {
        if self.0.is_empty() { Ok(()) } else { Err(PackedError::Long(self.0.len())) }
    }
}

fn utf8<'a>(bytes: &'a [u8], what: &'static str, place: Option<usize>) -> Result<&'a str, PackedError> {
    std::str::from_utf8(bytes).map_err(|_| PackedError::Text { what, place })
}

/// A length as a form writes it.
pub(super) fn fit<T: TryFrom<usize> + Bounded>(what: &'static str, got: usize) -> Result<T, PackedError> {
    T::try_from(got).map_err(|_| PackedError::TooLarge { what, got, most: T::MOST })
}

/// The largest length.
pub(super) trait Bounded {
    const MOST: usize;
}

impl Bounded for u8 {
    const MOST: usize = u8::MAX as usize;
}

impl Bounded for u16 {
    const MOST: usize = u16::MAX as usize;
}
