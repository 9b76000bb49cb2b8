//! The payload of block-status chunks.

use super::Fields;
use crate::error::Fault;
use crate::limits;

/// One descriptor of a block-status chunk: where it begins follows from the ones before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Descriptor {
    pub(crate) length: u64,
    pub(crate) flags: u64,
}

/// The payload of a block-status chunk: the context it is about and its descriptors.
pub(crate) fn decode_status(
    payload: &[u8],
    extended: bool,
) -> Result<(u32, Vec<Descriptor>), Fault> {
    let broken = || {
        Fault::protocol(format!(
            "a block-status chunk of {} bytes is malformed",
            payload.len()
        ))
    };
    let mut fields = Fields::new(payload);
    let context = fields.u32().ok_or_else(broken)?;
    let width = if extended { 16 } else { 8 };
    let announced = if extended {
        Some(fields.u32().ok_or_else(broken)?)
    } else {
        None
    };
    let rest = fields.clone().rest().len();
    let count = rest / width;
    if !rest.is_multiple_of(width)
        || announced.is_some_and(|announced| usize::try_from(announced) != Ok(count))
    {
        return Err(broken());
    }
    let mut descriptors = Vec::with_capacity(count.min(limits::MAX_STATUS_DESCRIPTORS));
    while !fields.is_empty() {
        let (length, flags) = if extended {
            (
                fields.u64().ok_or_else(broken)?,
                fields.u64().ok_or_else(broken)?,
            )
        } else {
            (
                u64::from(fields.u32().ok_or_else(broken)?),
                u64::from(fields.u32().ok_or_else(broken)?),
            )
        };
        descriptors.push(Descriptor { length, flags });
    }
    Ok((context, descriptors))
}

/// Appends the payload of a block-status chunk. With 32-bit headers the caller has cut every
/// length to 32 bits; flags above 32 bits are not sent in them.
pub(crate) fn encode_status(
    context: u32,
    descriptors: &[Descriptor],
    extended: bool,
    out: &mut Vec<u8>,
) {
    out.extend_from_slice(&context.to_be_bytes());
    if extended {
        out.extend_from_slice(
            &u32::try_from(descriptors.len())
                .unwrap_or(u32::MAX)
                .to_be_bytes(),
        );
    }
    for descriptor in descriptors {
        if extended {
            out.extend_from_slice(&descriptor.length.to_be_bytes());
            out.extend_from_slice(&descriptor.flags.to_be_bytes());
        } else {
            out.extend_from_slice(
                &u32::try_from(descriptor.length)
                    .unwrap_or(u32::MAX)
                    .to_be_bytes(),
            );
            out.extend_from_slice(
                &u32::try_from(descriptor.flags & 0xffff_ffff)
                    .unwrap_or(0)
                    .to_be_bytes(),
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_decoded_status_is_what_was_encoded(
            context: u32,
            pairs in prop::collection::vec((any::<u32>(), any::<u32>()), 0..50),
            extended: bool,
        ) {
            let sent: Vec<_> = pairs
                .iter()
                .map(|(length, flags)| Descriptor { length: u64::from(*length), flags: u64::from(*flags) })
                .collect();
            let mut payload = Vec::new();
            encode_status(context, &sent, extended, &mut payload);
            prop_assert_eq!(decode_status(&payload, extended).unwrap(), (context, sent));
        }
    }
}
