//! The primitive encoding of everything ZooKeeper writes, on the wire and on disk (`BinaryInputArchive`,
//! `BinaryOutputArchive`): big-endian integers; buffers and strings with an int length, -1 for null; vectors with an
//! int count. Readers borrow from the bytes they are given and never allocate more than those bytes can hold.

use std::borrow::Cow;

use thiserror::Error;

/// Why bytes are not a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum JuteError {
    /// The bytes end inside a field.
    #[error("record ends at byte {at}, {wanted} more wanted")]
    Short {
        /// Offset of the field.
        at: usize,
        /// Bytes the field needs.
        wanted: usize,
    },
    /// A length below -1 or beyond the bytes that are there.
    #[error("unreasonable length {len} at byte {at}")]
    BadLength {
        /// Offset of the length.
        at: usize,
        /// The length found.
        len: i32,
    },
    /// A field that must not be null is.
    #[error("null where a value is needed, at byte {at}")]
    Null {
        /// Offset behind the null.
        at: usize,
    },
    /// A field holds a value that its record does not allow.
    #[error("value {value} at byte {at} is not allowed")]
    BadValue {
        /// Offset behind the value.
        at: usize,
        /// The value.
        value: i64,
    },
}

/// A cursor over the bytes of one record.
#[derive(Clone, Debug)]
pub struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    /// Starts at the first byte.
    pub fn new(bytes: &'a [u8]) -> Reader<'a> {
        Reader { bytes, at: 0 }
    }

    /// How many bytes were taken.
    pub fn position(&self) -> usize {
        self.at
    }

    /// The bytes not taken yet.
    pub fn rest(&self) -> &'a [u8] {
        &self.bytes[self.at..]
    }

    /// Whether every byte was taken.
    pub fn is_empty(&self) -> bool {
        self.at == self.bytes.len()
    }

    fn take(&mut self, n: usize) -> Result<&'a [u8], JuteError> {
        let rest = self.rest();
        if n > rest.len() {
            return Err(JuteError::Short { at: self.at, wanted: n - rest.len() });
        }
        self.at += n;
        Ok(&rest[..n])
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], JuteError> {
        let mut array = [0; N];
        array.copy_from_slice(self.take(N)?);
        Ok(array)
    }

    /// One byte, two's complement.
    pub fn byte(&mut self) -> Result<i8, JuteError> {
        Ok(self.array::<1>()?[0] as i8)
    }

    /// A boolean; any byte but 0 is true.
    pub fn bool(&mut self) -> Result<bool, JuteError> {
        Ok(self.byte()? != 0)
    }

    /// A 32-bit integer.
    pub fn int(&mut self) -> Result<i32, JuteError> {
        Ok(i32::from_be_bytes(self.array()?))
    }

    /// A 64-bit integer.
    pub fn long(&mut self) -> Result<i64, JuteError> {
        Ok(i64::from_be_bytes(self.array()?))
    }

    /// A buffer; `None` is null, which is not the same as empty.
    pub fn buffer(&mut self) -> Result<Option<&'a [u8]>, JuteError> {
        let at = self.at;
        let len = self.int()?;
        match usize::try_from(len) {
            Ok(n) if n <= self.rest().len() => Ok(Some(self.take(n)?)),
            Err(_) if len == -1 => Ok(None),
            _ => Err(JuteError::BadLength { at, len }),
        }
    }

    /// A string; malformed UTF-8 decodes to U+FFFD, as in Java, and so fails the path rules later.
    pub fn string(&mut self) -> Result<Option<Cow<'a, str>>, JuteError> {
        Ok(self.buffer()?.map(String::from_utf8_lossy))
    }

    /// A string that must be there.
    pub fn required_string(&mut self) -> Result<Cow<'a, str>, JuteError> {
        self.string()?.ok_or(JuteError::Null { at: self.at })
    }

    /// The count of a vector; `None` is null. A count below -1 reads as an empty vector, as in Java. The caller reads
    /// the elements and must not reserve space by this number: see [`Reader::capacity_for`].
    pub fn count(&mut self) -> Result<Option<usize>, JuteError> {
        let n = self.int()?;
        Ok(if n == -1 { None } else { Some(usize::try_from(n).unwrap_or(0)) })
    }

    /// How many elements of at least `element_bytes_min` bytes can still follow: a bound for reservations.
    pub fn capacity_for(&self, count: usize, element_bytes_min: usize) -> usize {
        count.min(self.rest().len() / element_bytes_min.max(1))
    }

    /// A vector of strings; null elements are an error.
    pub fn strings(&mut self) -> Result<Option<Vec<String>>, JuteError> {
        let Some(count) = self.count()? else { return Ok(None) };
        let mut strings = Vec::with_capacity(self.capacity_for(count, 4));
        for _ in 0..count {
            strings.push(self.required_string()?.into_owned());
        }
        Ok(Some(strings))
    }
}

/// Appends fields to a byte vector. Implemented for `Vec<u8>`, so that records are written where they are sent from.
pub trait Writer {
    /// One byte.
    fn put_byte(&mut self, value: i8);
    /// 0 or 1.
    fn put_bool(&mut self, value: bool);
    /// A 32-bit integer.
    fn put_int(&mut self, value: i32);
    /// A 64-bit integer.
    fn put_long(&mut self, value: i64);
    /// A buffer; `None` is null.
    fn put_buffer(&mut self, value: Option<&[u8]>);
    /// A string.
    fn put_string(&mut self, value: &str);
    /// A string that may be null.
    fn put_opt_string(&mut self, value: Option<&str>);
    /// A vector of strings.
    fn put_strings<S: AsRef<str>>(&mut self, values: &[S]);
}

/// A length as it is written. Everything written was bounded when it came in, far below 2 GiB.
pub fn len_i32(len: usize) -> i32 {
    i32::try_from(len).expect("records are bounded by limits::RECORD_BYTES_MAX")
}

/// A vector whose length is known when its items are written: `items` writes them, and says how many they are.
pub fn put_counted(out: &mut Vec<u8>, items: impl FnOnce(&mut Vec<u8>) -> usize) {
    let at = out.len();
    out.put_int(0);
    let count = items(out);
    out[at..][..4].copy_from_slice(&len_i32(count).to_be_bytes());
}

impl Writer for Vec<u8> {
    fn put_byte(&mut self, value: i8) {
        self.push(value as u8);
    }

    fn put_bool(&mut self, value: bool) {
        self.push(u8::from(value));
    }

    fn put_int(&mut self, value: i32) {
        self.extend_from_slice(&value.to_be_bytes());
    }

    fn put_long(&mut self, value: i64) {
        self.extend_from_slice(&value.to_be_bytes());
    }

    fn put_buffer(&mut self, value: Option<&[u8]>) {
        match value {
            None => self.put_int(-1),
            Some(bytes) => {
                self.put_int(len_i32(bytes.len()));
                self.extend_from_slice(bytes);
            }
        }
    }

    fn put_string(&mut self, value: &str) {
        self.put_buffer(Some(value.as_bytes()));
    }

    fn put_opt_string(&mut self, value: Option<&str>) {
        self.put_buffer(value.map(str::as_bytes));
    }

    fn put_strings<S: AsRef<str>>(&mut self, values: &[S]) {
        self.put_int(len_i32(values.len()));
        for value in values {
            self.put_string(value.as_ref());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_reads_back() {
        let mut bytes = Vec::new();
        bytes.put_int(-2);
        bytes.put_long(i64::MIN);
        bytes.put_bool(true);
        bytes.put_buffer(None);
        bytes.put_buffer(Some(b""));
        bytes.put_string("/ü");
        bytes.put_strings(&["a", "b"]);
        let mut r = Reader::new(&bytes);
        assert_eq!(r.int(), Ok(-2));
        assert_eq!(r.long(), Ok(i64::MIN));
        assert_eq!(r.bool(), Ok(true));
        assert_eq!(r.buffer(), Ok(None));
        assert_eq!(r.buffer(), Ok(Some(&b""[..])));
        assert_eq!(r.required_string().as_deref(), Ok("/ü"));
        assert_eq!(r.strings(), Ok(Some(vec!["a".into(), "b".into()])));
        assert!(r.is_empty());
    }

    #[test]
    fn a_length_beyond_the_end_is_refused_without_reserving_memory() {
        let mut bytes = Vec::new();
        bytes.put_int(i32::MAX);
        assert_eq!(Reader::new(&bytes).buffer(), Err(JuteError::BadLength { at: 0, len: i32::MAX }));
        assert_eq!(Reader::new(&(-2i32).to_be_bytes()).buffer(), Err(JuteError::BadLength { at: 0, len: -2 }));
        assert!(Reader::new(&bytes).strings().is_err());
    }

    #[test]
    fn a_count_below_minus_one_is_an_empty_vector() {
        assert_eq!(Reader::new(&(-7i32).to_be_bytes()).strings(), Ok(Some(vec![])));
        assert_eq!(Reader::new(&(-1i32).to_be_bytes()).strings(), Ok(None));
    }

    #[test]
    fn malformed_utf8_becomes_the_replacement_character() {
        let mut bytes = Vec::new();
        bytes.put_buffer(Some(&[b'/', 0xff]));
        assert_eq!(Reader::new(&bytes).required_string().as_deref(), Ok("/\u{fffd}"));
    }
}
