//! The one place where bytes leave a frame.
//!
//! A parser takes what it needs, front to back, and is told `None` where the captured bytes end. So a parser reads as
//! a list of fields, and no other parser does slice arithmetic. (The fast path takes one array of fixed length.)

/// The bytes of a frame that nobody has taken yet. Copying it is a way to look ahead.
#[derive(Debug, Clone, Copy)]
pub(super) struct Cursor<'a> {
    rest: &'a [u8],
}

impl<'a> Cursor<'a> {
    /// A cursor at the start of `bytes`.
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    /// How many bytes are left.
    pub(super) fn len(&self) -> usize {
        self.rest.len()
    }

    /// The next byte, which stays where it is.
    #[inline]
    pub(super) fn peek(&self) -> Option<u8> {
        self.rest.first().copied()
    }

    /// The next `N` bytes. Takes nothing when there are fewer.
    #[inline]
    pub(super) fn take_array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (taken, rest) = self.rest.split_first_chunk::<N>()?;
        self.rest = rest;
        Some(*taken)
    }

    /// The next byte.
    #[inline]
    pub(super) fn take_u8(&mut self) -> Option<u8> {
        self.take_array().map(|[byte]| byte)
    }

    /// The next two bytes as a number in network byte order.
    #[inline]
    pub(super) fn take_u16(&mut self) -> Option<u16> {
        self.take_array().map(u16::from_be_bytes)
    }

    /// The next `length_bytes` bytes, as a cursor of their own. Takes nothing when there are fewer.
    #[inline]
    pub(super) fn take(&mut self, length_bytes: usize) -> Option<Cursor<'a>> {
        let (taken, rest) = self.rest.split_at_checked(length_bytes)?;
        self.rest = rest;
        Some(Self::new(taken))
    }

    /// Leaves out the next `length_bytes` bytes. Leaves out nothing when there are fewer.
    #[inline]
    pub(super) fn skip(&mut self, length_bytes: usize) -> Option<()> {
        self.take(length_bytes).map(|_| ())
    }

    /// Forgets what lies beyond the next `length_bytes` bytes.
    #[inline]
    pub(super) fn limit(&mut self, length_bytes: usize) {
        self.rest = self.rest.get(..length_bytes).unwrap_or(self.rest);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn takes_front_to_back() {
        let mut cursor = Cursor::new(&[1, 2, 3, 4, 5, 6, 7]);
        assert_eq!(cursor.peek(), Some(1));
        assert_eq!(cursor.take_u8(), Some(1));
        assert_eq!(cursor.take_u16(), Some(0x0203));
        assert_eq!(cursor.skip(1), Some(()));
        assert_eq!(cursor.take_array(), Some([5, 6]));
        assert_eq!(cursor.len(), 1);
    }

    #[test]
    fn a_failed_take_takes_nothing() {
        let mut cursor = Cursor::new(&[1, 2]);
        assert_eq!(cursor.take_array::<3>(), None);
        assert!(cursor.take(3).is_none());
        assert_eq!(cursor.skip(usize::MAX), None);
        assert_eq!(cursor.take_u16(), Some(0x0102));
        assert_eq!(cursor.take_u8(), None);
        assert_eq!(cursor.peek(), None);
    }

    #[test]
    fn a_limit_only_ever_shortens() {
        let mut cursor = Cursor::new(&[1, 2, 3]);
        cursor.limit(10);
        assert_eq!(cursor.len(), 3);
        cursor.limit(1);
        assert_eq!((cursor.take_u8(), cursor.take_u8()), (Some(1), None));
    }
}
