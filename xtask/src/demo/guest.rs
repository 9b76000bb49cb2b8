//! The guest: a boot sector that writes to the disk it was started from, for ever.
//!
//! It sleeps until the timer ticks, writes some sectors through the BIOS, one after
//! the other, and sleeps again. Write number `n`, from 1, fills one sector with `n`
//! as 128 numbers of 32 bits, and its place follows from `n`. So what a copy of the
//! disk holds tells up to which write it goes, and whether any is missing.

/// Where the guest writes: `SLOTS` places, `SLOT_BYTES` apart.
const START: usize = 1 << 20;
const SLOTS: usize = 4096;
const SLOT_BYTES: usize = 4096;
/// Where that ends.
pub(super) const END: usize = START + SLOTS * SLOT_BYTES;
pub(super) const SECTOR: usize = 512;

/// Where in its memory the guest keeps two numbers of 32 bits: how many writes it
/// began, and how many are done.
pub(super) const COUNTERS: u32 = 0x8200;

/// The boot sector's code for real mode, at address 0x7c00.
const CODE: &[u8] = &[
    0xea, 0x05, 0x7c, 0x00, 0x00, //       jmp 0:start
    0x31, 0xc0, //                  start: xor ax, ax
    0x8e, 0xd8, //                         mov ds, ax
    0x8e, 0xc0, //                         mov es, ax
    0x8e, 0xd0, //                         mov ss, ax
    0xbc, 0x00, 0x7c, //                   mov sp, 0x7c00
    0x88, 0x16, 0x74, 0x7c, //             mov [drive], dl
    0x66, 0x31, 0xdb, //                   xor ebx, ebx
    0x66, 0x89, 0x1e, 0x00, 0x82, //       mov [begun], ebx
    0x66, 0x89, 0x1e, 0x04, 0x82, //       mov [done], ebx
    0xfb, //                               sti
    0xfc, //                               cld
    0xf4, //                        tick:  hlt
    0xbd, 0x08, 0x00, //                   mov bp, 8
    0x66, 0x43, //                  next:  inc ebx
    0x66, 0x89, 0x1e, 0x00, 0x82, //       mov [begun], ebx
    0x66, 0x89, 0xd8, //                   mov eax, ebx
    0xbf, 0x00, 0x80, //                   mov di, buffer
    0xb9, 0x80, 0x00, //                   mov cx, 128
    0x66, 0xf3, 0xab, //                   rep stosd
    0x66, 0x6b, 0xc3, 0x61, //             imul eax, ebx, 97
    0x66, 0x25, 0xff, 0x0f, 0x00, 0x00, // and eax, SLOTS - 1
    0x66, 0xc1, 0xe0, 0x03, //             shl eax, 3 (sectors in a slot)
    0x66, 0x05, 0x00, 0x08, 0x00, 0x00, // add eax, START in sectors
    0x66, 0xa3, 0x7d, 0x7c, //             mov [lba], eax
    0xbe, 0x75, 0x7c, //                   mov si, packet
    0x8a, 0x16, 0x74, 0x7c, //             mov dl, [drive]
    0xb4, 0x43, //                         mov ah, 0x43 (extended write)
    0x30, 0xc0, //                         xor al, al
    0x55, //                               push bp
    0x66, 0x53, //                         push ebx
    0xcd, 0x13, //                         int 0x13
    0x66, 0x5b, //                         pop ebx
    0x5d, //                               pop bp
    0x72, 0x0a, //                         jc stop
    0x66, 0x89, 0x1e, 0x04, 0x82, //       mov [done], ebx
    0x4d, //                               dec bp
    0x75, 0xb8, //                         jnz next
    0xeb, 0xb2, //                         jmp tick
    0xf4, //                        stop:  hlt
    0xeb, 0xfd, //                         jmp stop
    0x00, //                        drive
    0x10, 0x00, 0x01, 0x00, //      packet: its size, one sector,
    0x00, 0x80, 0x00, 0x00, //              from 0:buffer
    0x00, 0x00, 0x00, 0x00, //        lba: to this sector
    0x00, 0x00, 0x00, 0x00,
];

/// The first sector of the guest's disk.
pub(super) fn boot_sector() -> [u8; SECTOR] {
    let mut sector = [0; SECTOR];
    sector[..CODE.len()].copy_from_slice(CODE);
    sector[SECTOR - 2..].copy_from_slice(&[0x55, 0xaa]);
    sector
}

/// Does write number `number` on a copy of the disk.
pub(super) fn write(disk: &mut [u8], number: u32) {
    let slot = usize::try_from(number)
        .expect("an address has 64 bits")
        .wrapping_mul(97)
        % SLOTS;
    let start = START + slot * SLOT_BYTES;
    for word in disk[start..start + SECTOR].chunks_exact_mut(4) {
        word.copy_from_slice(&number.to_le_bytes());
    }
}

/// The number of the last write that this copy of the disk holds; 0 for none.
pub(super) fn last_write(disk: &[u8]) -> u32 {
    let slots = disk[START..].chunks_exact(SLOT_BYTES).take(SLOTS);
    let number = |slot: &[u8]| u32::from_le_bytes([slot[0], slot[1], slot[2], slot[3]]);
    slots.map(number).max().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::{CODE, END, boot_sector, last_write, write};

    #[test]
    fn a_disk_tells_how_many_writes_it_holds() {
        let mut disk = vec![0; END];
        assert_eq!(last_write(&disk), 0);
        for number in 1..=5000 {
            write(&mut disk, number);
            assert_eq!(last_write(&disk), number);
        }
    }

    #[test]
    fn the_boot_sector_is_marked_as_one_and_has_its_data_where_the_code_expects_it() {
        assert_eq!(boot_sector()[510..], [0x55, 0xaa]);
        assert_eq!(CODE.len(), 0x85);
        // The packet starts at 0x7c75 with its size; the sector to write to is at 0x7c7d.
        assert_eq!(CODE[0x75], 16);
        assert_eq!(CODE[0x7d..], [0; 8]);
    }
}
