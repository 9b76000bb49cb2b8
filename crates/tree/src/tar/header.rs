//! The header of a member: 512 bytes, as POSIX defines them for `ustar`.

/// A block; everything in an archive is padded to it.
pub(super) const BLOCK: usize = 512;
/// The longest name and target in a header.
pub(super) const TEXT_MAX: usize = 100;
/// The largest owner in a header.
pub(super) const ID_MAX: u32 = 0o7_777_777;
/// The largest size and the last second in a header.
pub(super) const NUMBER_MAX: u64 = 0o77_777_777_777;

/// What stands in a header. What is too large for its field is written as zero, or cut, and stands
/// in a pax record besides.
#[derive(Clone, Copy, Debug)]
pub(super) struct Header<'a> {
    pub(super) name: &'a [u8],
    pub(super) permissions: u16,
    pub(super) uid: u32,
    pub(super) gid: u32,
    pub(super) size: u64,
    pub(super) mtime: i64,
    /// `0` a file, `1` a hard link, `2` a symbolic link, `3` and `4` devices, `5` a folder, `6` a
    /// named pipe, `x` pax records.
    pub(super) kind: u8,
    pub(super) target: &'a [u8],
    pub(super) device: Option<(u32, u32)>,
}

impl Header<'_> {
    pub(super) fn encode(&self) -> [u8; BLOCK] {
        let mut block = [0; BLOCK];
        put(&mut block[..100], self.name);
        octal(&mut block[100..108], self.permissions.into());
        octal(
            &mut block[108..116],
            fitting(self.uid.into(), ID_MAX.into()),
        );
        octal(
            &mut block[116..124],
            fitting(self.gid.into(), ID_MAX.into()),
        );
        octal(&mut block[124..136], fitting(self.size, NUMBER_MAX));
        let mtime = u64::try_from(self.mtime).unwrap_or(0);
        octal(&mut block[136..148], fitting(mtime, NUMBER_MAX));
        block[156] = self.kind;
        put(&mut block[157..257], self.target);
        put(&mut block[257..265], b"ustar\x0000");
        if let Some((major, minor)) = self.device {
            number(&mut block[329..337], major);
            number(&mut block[337..345], minor);
        }
        // The sum is taken with spaces in its own place.
        block[148..156].fill(b' ');
        let sum = block.iter().copied().map(u64::from).sum();
        octal(&mut block[148..155], sum);
        block
    }
}

fn fitting(number: u64, max: u64) -> u64 {
    if number > max { 0 } else { number }
}

fn put(field: &mut [u8], text: &[u8]) {
    for (to, from) in field.iter_mut().zip(text) {
        *to = *from;
    }
}

/// Octal digits, zeroes before them, and a zero byte at the end.
fn octal(field: &mut [u8], mut number: u64) {
    for digit in field.iter_mut().rev().skip(1) {
        *digit = b'0' + (number & 7).to_le_bytes()[0];
        number >>= 3;
    }
}

/// A device's number: octal, or, if that is too short, binary with the first bit set, as GNU does.
fn number(field: &mut [u8], number: u32) {
    if number <= ID_MAX {
        octal(field, number.into());
    } else {
        field[0] = 0x80;
        field[4..].copy_from_slice(&number.to_be_bytes());
    }
}
