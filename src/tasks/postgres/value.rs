//! Values as PostgreSQL's binary protocol writes them. They go beside the SQL, never into it.
//!
//! Source: the `*send` and `*recv` functions of PostgreSQL's `src/backend/utils/adt` (`int8send`,
//! `array_recv`, ..).

use std::borrow::Cow;

/// The numbers by which servers know the types that are used here: `pg_type.dat`, the same in every
/// version.
mod oid {
    pub(super) const BOOL: u32 = 16;
    pub(super) const BYTEA: u32 = 17;
    pub(super) const INT8: u32 = 20;
    pub(super) const INT2: u32 = 21;
    pub(super) const INT4: u32 = 23;
    pub(super) const TEXT: u32 = 25;
    pub(super) const FLOAT8: u32 = 701;
    pub(super) const VARCHAR: u32 = 1043;
}

/// A parameter. The SQL says its type, `$1::int8`, because the server takes the bytes for what it
/// expects.
#[derive(Clone, Copy, Debug)]
pub(super) enum Param<'a> {
    Null,
    /// `bool`
    Bool(bool),
    /// `int8`
    Int(i64),
    /// `float8`
    Float(f64),
    /// `text`
    Text(&'a str),
    /// `bytea`
    Bytes(&'a [u8]),
    /// `int8[]`
    Ints(&'a [i64]),
    /// `int8[]` with nulls
    MaybeInts(&'a [Option<i64>]),
    /// `float8[]` with nulls
    MaybeFloats(&'a [Option<f64>]),
    /// `text[]`
    Texts(&'a [&'a str]),
    /// `text[]` with nulls
    MaybeTexts(&'a [Option<&'a str>]),
    /// `bytea[]`
    ByteArrays(&'a [&'a [u8]]),
    /// `bytea[]` with nulls
    MaybeByteArrays(&'a [Option<&'a [u8]>]),
}

impl<'a> Param<'a> {
    /// Whether a text has a zero byte, which PostgreSQL has none of.
    pub(super) fn has_zero(&self) -> bool {
        let has = |text: &str| text.as_bytes().contains(&0);
        match *self {
            Param::Text(text) => has(text),
            Param::Texts(texts) => texts.iter().any(|text| has(text)),
            Param::MaybeTexts(texts) => texts.iter().flatten().any(|text| has(text)),
            _ => false,
        }
    }

    /// The bytes of the parameter; `None` for null.
    pub(super) fn encode(&self) -> Option<Cow<'a, [u8]>> {
        Some(match *self {
            Param::Null => return None,
            Param::Bool(value) => Cow::Owned(vec![u8::from(value)]),
            Param::Int(value) => Cow::Owned(value.to_be_bytes().to_vec()),
            Param::Float(value) => Cow::Owned(value.to_be_bytes().to_vec()),
            Param::Text(text) => Cow::Borrowed(text.as_bytes()),
            Param::Bytes(bytes) => Cow::Borrowed(bytes),
            Param::Ints(values) => array(oid::INT8, values.iter().map(|value| Some(value.to_be_bytes()))),
            Param::MaybeInts(values) => array(oid::INT8, values.iter().map(|value| value.map(i64::to_be_bytes))),
            Param::MaybeFloats(values) => array(oid::FLOAT8, values.iter().map(|value| value.map(f64::to_be_bytes))),
            Param::Texts(texts) => array(oid::TEXT, texts.iter().copied().map(Some)),
            Param::MaybeTexts(texts) => array(oid::TEXT, texts.iter().copied()),
            Param::ByteArrays(values) => array(oid::BYTEA, values.iter().copied().map(Some)),
            Param::MaybeByteArrays(values) => array(oid::BYTEA, values.iter().copied()),
        })
    }
}

/// One dimension: how many dimensions, whether nulls may come, the elements' type, their count, the
/// first index, and then each with its length before it, which is -1 for null.
fn array<T: AsRef<[u8]>>(element: u32, values: impl ExactSizeIterator<Item = Option<T>>) -> Cow<'static, [u8]> {
    let mut bytes = Vec::new();
    let count = length(values.len());
    for number in [i32::from(count > 0), 1, length(element as usize)] {
        bytes.extend(number.to_be_bytes());
    }
    if count > 0 {
        bytes.extend(count.to_be_bytes());
        bytes.extend(1_i32.to_be_bytes());
    }
    for value in values {
        let value = value.as_ref().map(T::as_ref);
        bytes.extend(value.map_or(-1, |value| length(value.len())).to_be_bytes());
        bytes.extend(value.unwrap_or_default());
    }
    Cow::Owned(bytes)
}

/// More than fits is more than the protocol carries: the server, or libpq before it, refuses what
/// has such a length.
fn length(bytes: usize) -> i32 {
    i32::try_from(bytes).unwrap_or(i32::MAX)
}

impl From<i64> for Param<'_> {
    fn from(value: i64) -> Self {
        Param::Int(value)
    }
}

impl From<bool> for Param<'_> {
    fn from(value: bool) -> Self {
        Param::Bool(value)
    }
}

impl<'a> From<&'a str> for Param<'a> {
    fn from(text: &'a str) -> Self {
        Param::Text(text)
    }
}

impl<'a> From<&'a [u8]> for Param<'a> {
    fn from(bytes: &'a [u8]) -> Self {
        Param::Bytes(bytes)
    }
}

impl<'a, T: Into<Param<'a>>> From<Option<T>> for Param<'a> {
    fn from(value: Option<T>) -> Self {
        value.map_or(Param::Null, Into::into)
    }
}

/// What a column can be read as.
pub(super) trait Column<'a>: Sized {
    /// The value of a column of this type; `None` if its type or its bytes are others.
    fn read(oid: u32, value: Option<&'a [u8]>) -> Option<Self>;
}

impl<'a> Column<'a> for bool {
    fn read(oid: u32, value: Option<&'a [u8]>) -> Option<bool> {
        match (oid, value?) {
            (oid::BOOL, [byte]) => Some(*byte != 0),
            _ => None,
        }
    }
}

impl<'a> Column<'a> for i64 {
    fn read(oid: u32, value: Option<&'a [u8]>) -> Option<i64> {
        let value = value?;
        match oid {
            oid::INT8 => value.try_into().ok().map(i64::from_be_bytes),
            oid::INT4 => value.try_into().ok().map(i32::from_be_bytes).map(i64::from),
            oid::INT2 => value.try_into().ok().map(i16::from_be_bytes).map(i64::from),
            _ => None,
        }
    }
}

impl<'a> Column<'a> for f64 {
    fn read(oid: u32, value: Option<&'a [u8]>) -> Option<f64> {
        (oid == oid::FLOAT8).then_some(value?.try_into().ok().map(f64::from_be_bytes)).flatten()
    }
}

impl<'a> Column<'a> for &'a str {
    fn read(oid: u32, value: Option<&'a [u8]>) -> Option<&'a str> {
        matches!(oid, oid::TEXT | oid::VARCHAR).then_some(std::str::from_utf8(value?).ok()).flatten()
    }
}

/// What isn't UTF-8, which a database in SQL_ASCII may hold, is replaced: for what is shown, and
/// never for what is looked up.
impl<'a> Column<'a> for Cow<'a, str> {
    fn read(oid: u32, value: Option<&'a [u8]>) -> Option<Cow<'a, str>> {
        Some(String::from_utf8_lossy(matches!(oid, oid::TEXT | oid::VARCHAR).then_some(value?)?))
    }
}

impl<'a> Column<'a> for String {
    fn read(oid: u32, value: Option<&'a [u8]>) -> Option<String> {
        <&str>::read(oid, value).map(str::to_owned)
    }
}

impl<'a> Column<'a> for &'a [u8] {
    fn read(oid: u32, value: Option<&'a [u8]>) -> Option<&'a [u8]> {
        (oid == oid::BYTEA).then_some(value).flatten()
    }
}

impl<'a> Column<'a> for Vec<u8> {
    fn read(oid: u32, value: Option<&'a [u8]>) -> Option<Vec<u8>> {
        <&[u8]>::read(oid, value).map(<[u8]>::to_vec)
    }
}

impl<'a, T: Column<'a>> Column<'a> for Option<T> {
    fn read(oid: u32, value: Option<&'a [u8]>) -> Option<Option<T>> {
        match value {
            None => Some(None),
            value => T::read(oid, value).map(Some),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_array_says_its_type_its_length_and_its_nulls() {
        let bytes = Param::MaybeTexts(&[Some("ab"), None]).encode().expect("no null");
        let expected: &[&[u8]] = &[
            &[0, 0, 0, 1],
            &[0, 0, 0, 1],
            &[0, 0, 0, 25],
            &[0, 0, 0, 2],
            &[0, 0, 0, 1],
            &[0, 0, 0, 2],
            b"ab",
            &[255; 4],
        ];
        assert_eq!(*bytes, *expected.concat());
        let empty = Param::Ints(&[]).encode().expect("no null");
        assert_eq!(*empty, *[[0_u8, 0, 0, 0], [0, 0, 0, 1], [0, 0, 0, 20]].concat(), "no dimensions at all");
    }

    #[test]
    fn a_column_of_another_type_is_no_value_and_no_panic() {
        assert_eq!(i64::read(oid::INT4, Some(&[0, 0, 0, 7])), Some(7));
        assert_eq!(i64::read(oid::INT8, Some(&[0, 0, 0, 7])), None, "four bytes of eight");
        assert_eq!(i64::read(oid::TEXT, Some(b"7")), None);
        assert_eq!(i64::read(oid::INT8, None), None, "null");
        assert_eq!(Option::<i64>::read(oid::INT8, None), Some(None));
        assert_eq!(<&str>::read(oid::TEXT, Some(&[0xff])), None, "not UTF-8");
        assert_eq!(<&[u8]>::read(oid::TEXT, Some(b"x")), None, "text is not bytes");
    }
}
