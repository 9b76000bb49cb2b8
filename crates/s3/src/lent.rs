//! Buffers that are sent without a copy.

use std::sync::Arc;

use bytes::Bytes;

struct Lent(Arc<Vec<u8>>);

impl AsRef<[u8]> for Lent {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

/// Lends a buffer, and takes it back; it is empty if something still uses it, as a request may that was
/// given up.
pub(crate) fn lend<T>(buffer: &mut Vec<u8>, to: impl FnOnce(Bytes) -> T) -> T {
    let lent = Arc::new(std::mem::take(buffer));
    let done = to(Bytes::from_owner(Lent(Arc::clone(&lent))));
    *buffer = Arc::try_unwrap(lent).unwrap_or_default();
    done
}

#[cfg(test)]
mod tests {
    use super::lend;

    #[test]
    fn a_buffer_comes_back_unless_it_is_still_in_use() {
        let mut buffer = vec![7; 1000];
        let place = buffer.as_ptr();
        let (sent, there) = lend(&mut buffer, |bytes| (bytes.to_vec(), bytes.as_ptr()));
        assert_eq!((sent, there), (vec![7; 1000], place));
        assert_eq!((buffer.as_ptr(), buffer.len()), (place, 1000));
        let kept = lend(&mut buffer, |bytes| bytes);
        assert!(buffer.is_empty());
        assert_eq!(kept, vec![7; 1000]);
    }
}
