//! The lines of a `.pxarexclude` file.

/// A line that should be a pattern.
pub(super) struct Line<'a> {
    /// From 1.
    pub(super) number: usize,
    pub(super) text: &'a [u8],
}

/// The lines that are neither empty nor comments. Blanks around a line do not count, as in
/// Proxmox's client, and so a carriage return does not.
pub(super) fn lines(content: &[u8]) -> impl Iterator<Item = Line<'_>> {
    let lines = (1..).zip(content.split(|&byte| byte == b'\n'));
    lines.filter_map(|(number, line)| {
        let text = line.trim_ascii();
        let is_pattern = !text.is_empty() && !text.starts_with(b"#");
        is_pattern.then_some(Line { number, text })
    })
}
