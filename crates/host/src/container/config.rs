//! A container's configuration, as far as a backup has to know it.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use snapkeep_api::{Error, ErrorKind, IdMap, IdRange, Result, add_lxc_range};

use super::limits::{
    CONFIG_BYTES_MAX, CONFIG_LINES_MAX, INCLUDE_DEPTH_MAX, INCLUDED_BYTES_MAX,
    INCLUDED_ENTRIES_MAX, INCLUDED_FILES_MAX, MOUNTS_MAX,
};
use super::lines::{Line, mount_fields, read, settings, shown, shown_path};

/// Something that is mounted in a container beside its root file system.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Mount {
    /// A path or a device of the machine, or a name such as `proc`.
    pub source: PathBuf,
    /// Where it is in the container.
    pub target: PathBuf,
    /// The type of the file system; `none` for folders of the machine.
    pub kind: String,
    /// Whether it is a file or folder of the machine (`bind` or `rbind`).
    pub bind: bool,
}

/// What LXC is told about a container.
#[derive(Clone, Debug)]
pub struct LxcConfig {
    /// The file itself, without what it includes: what is kept with an archive.
    pub raw: Vec<u8>,
    /// The folder of `lxc.rootfs.path`.
    pub rootfs: PathBuf,
    /// `lxc.idmap`; `None` is a privileged container, whose root is the machine's.
    pub idmap: Option<IdMap>,
    /// `lxc.mount.entry` and the lines of `lxc.mount.fstab`, in order.
    pub mounts: Vec<Mount>,
    /// `lxc.ephemeral`: LXC destroys it when it stops.
    pub ephemeral: bool,
    /// `lxc.start.auto`: it is started with the machine.
    pub start_auto: bool,
}

impl LxcConfig {
    /// Reads a container's configuration and what it includes. Errors name the file and the line.
    pub fn read(path: &Path) -> Result<Self> {
        let raw = read(path, CONFIG_BYTES_MAX)?;
        let mut reader = Reader::default();
        reader.file(path, &raw, 0)?;
        let Some(rootfs) = reader.rootfs else {
            let what = format!("{}: there is no lxc.rootfs.path in it", shown_path(path));
            return Err(Error::new(ErrorKind::Invalid, what));
        };
        let idmap = if reader.users.is_empty() && reader.groups.is_empty() {
            None
        } else {
            let map = IdMap::new(reader.users, reader.groups);
            Some(map.map_err(|e| {
                let what = format!("{}: lxc.idmap", shown_path(path));
                Error::with_source(e.kind(), what, e)
            })?)
        };
        Ok(Self {
            raw,
            rootfs,
            idmap,
            mounts: reader.mounts,
            ephemeral: reader.ephemeral,
            start_auto: reader.start_auto,
        })
    }

    /// The mounts with files of the machine, which are not in the root file system.
    pub fn foreign_mounts(&self) -> impl Iterator<Item = &Mount> {
        let of_files =
            |mount: &&Mount| mount.bind || mount.source.as_os_str().as_bytes().starts_with(b"/");
        self.mounts.iter().filter(of_files)
    }
}

/// Collects what the files say; a later line wins, and an empty value takes back.
#[derive(Default)]
struct Reader {
    rootfs: Option<PathBuf>,
    users: Vec<IdRange>,
    groups: Vec<IdRange>,
    mounts: Vec<Mount>,
    ephemeral: bool,
    start_auto: bool,
    files: usize,
    bytes: u64,
    lines: usize,
}

impl Reader {
    fn file(&mut self, path: &Path, text: &[u8], depth: usize) -> Result<()> {
        for line in settings(text) {
            let line = line.map_err(|(number, why)| wrong(path, number, &why))?;
            self.lines += 1;
            if self.lines > CONFIG_LINES_MAX {
                let why = format!("there are more than {CONFIG_LINES_MAX} settings");
                return Err(wrong(path, line.number, &why));
            }
            if line.key == "lxc.include" {
                self.include(path, &line, depth)?;
            } else {
                self.setting(&line)
                    .map_err(|why| wrong(path, line.number, &format!("{}: {why}", line.key)))?;
            }
        }
        Ok(())
    }

    fn setting(&mut self, line: &Line<'_>) -> Result<(), String> {
        match line.key {
            "lxc.rootfs.path" => self.rootfs = rootfs(line.value)?,
            "lxc.rootfs" | "lxc.id_map" | "lxc.utsname" | "lxc.mount" => {
                return Err(
                    "this is how LXC called it before 2.1; lxc-update-config renames it".into(),
                );
            }
            "lxc.idmap" if line.value.is_empty() => {
                self.users.clear();
                self.groups.clear();
            }
            "lxc.idmap" => {
                let value = line.text().ok_or("it is not UTF-8")?;
                add_lxc_range(value, &mut self.users, &mut self.groups)?;
            }
            "lxc.ephemeral" => self.ephemeral = yes_or_no(line.value)?,
            "lxc.start.auto" => self.start_auto = yes_or_no(line.value)?,
            "lxc.mount.entry" if line.value.is_empty() => self.mounts.clear(),
            "lxc.mount.entry" => self.mount(line.value)?,
            "lxc.mount.fstab" if line.value.is_empty() => {}
            "lxc.mount.fstab" => {
                let path = line.path();
                if path.is_relative() {
                    return Err("it is no absolute path".into());
                }
                let text = read(&path, CONFIG_BYTES_MAX).map_err(|e| e.chain())?;
                self.count(text.len() as u64)?;
                for (number, line) in (1..).zip(text.split(|byte| *byte == b'\n')) {
                    let first = line.iter().find(|byte| !matches!(byte, b' ' | b'\t'));
                    if !matches!(first, None | Some(b'#')) {
                        self.mount(line).map_err(|why| {
                            format!("{}, line {number}: {why}", shown_path(&path))
                        })?;
                    }
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn mount(&mut self, line: &[u8]) -> Result<(), String> {
        let fields = mount_fields(line);
        let [source, target, kind, rest @ ..] = fields.as_slice() else {
            return Err("a mount has a source, a target and a type".into());
        };
        if self.mounts.len() >= MOUNTS_MAX {
            return Err(format!("there are more than {MOUNTS_MAX} mounts"));
        }
        let mut options = rest
            .first()
            .map_or(&b""[..], Vec::as_slice)
            .split(|b| *b == b',');
        self.mounts.push(Mount {
            source: OsStr::from_bytes(source).into(),
            target: OsStr::from_bytes(target).into(),
            kind: shown(kind),
            bind: options.any(|option| matches!(option, b"bind" | b"rbind")),
        });
        Ok(())
    }

    fn include(&mut self, by: &Path, line: &Line<'_>, depth: usize) -> Result<()> {
        let path = line.path();
        let here = |why: &str| {
            let why = format!("lxc.include of {}: {why}", shown_path(&path));
            wrong(by, line.number, &why)
        };
        if depth >= INCLUDE_DEPTH_MAX {
            return Err(here(&format!(
                "more than {INCLUDE_DEPTH_MAX} files include each other"
            )));
        }
        if path.is_relative() {
            return Err(here("it is no absolute path"));
        }
        let mut paths = vec![path.clone()];
        if path.is_dir() {
            paths = folder(&path).map_err(|why| here(&why))?;
        }
        for included in paths {
            self.files += 1;
            if self.files > INCLUDED_FILES_MAX {
                return Err(here(&format!("more than {INCLUDED_FILES_MAX} files")));
            }
            let text = read(&included, CONFIG_BYTES_MAX).map_err(|e| here(&e.chain()))?;
            self.count(text.len() as u64).map_err(|why| here(&why))?;
            self.file(&included, &text, depth + 1)?;
        }
        Ok(())
    }

    fn count(&mut self, bytes: u64) -> Result<(), String> {
        self.bytes += bytes;
        if self.bytes > INCLUDED_BYTES_MAX {
            return Err(format!(
                "all included files have more than {INCLUDED_BYTES_MAX} bytes"
            ));
        }
        Ok(())
    }
}

/// The configurations in an included folder, by name: LXC takes them as they come, so that none
/// may depend on the order.
fn folder(path: &Path) -> Result<Vec<PathBuf>, String> {
    let mut found = Vec::new();
    for (count, entry) in std::fs::read_dir(path)
        .map_err(|e| e.to_string())?
        .enumerate()
    {
        if count >= INCLUDED_ENTRIES_MAX {
            return Err(format!("it has more than {INCLUDED_ENTRIES_MAX} entries"));
        }
        let entry = entry.map_err(|e| e.to_string())?.path();
        if entry.as_os_str().as_bytes().ends_with(b".conf") {
            found.push(entry);
        }
    }
    found.sort();
    Ok(found)
}

fn yes_or_no(value: &[u8]) -> Result<bool, String> {
    match value {
        b"1" => Ok(true),
        b"0" | b"" => Ok(false),
        _ => Err("it is 0 or 1".into()),
    }
}

fn rootfs(value: &[u8]) -> Result<Option<PathBuf>, String> {
    if value.is_empty() {
        return Ok(None);
    }
    let (storage, folder) = match value.iter().position(|byte| *byte == b':') {
        Some(colon) if !value.starts_with(b"/") => (&value[..colon], &value[colon + 1..]),
        Some(_) | None => (&b"dir"[..], value),
    };
    let why = match storage {
        b"dir" | b"btrfs" => {
            if !folder.starts_with(b"/") {
                return Err(format!("{} is no absolute path", shown(value)));
            }
            return Ok(Some(OsStr::from_bytes(folder).into()));
        }
        b"overlay" | b"overlayfs" => {
            "its files are in several folders, which only a running container sees as one"
        }
        _ => "only a running container sees it as a folder",
    };
    Err(format!(
        "{} cannot be backed up: {why}; mount it, and back it up as a folder (--directory)",
        shown(value)
    ))
}

fn wrong(path: &Path, number: usize, why: &str) -> Error {
    let what = format!("{}, line {number}: {why}", shown_path(path));
    Error::new(ErrorKind::Invalid, what)
}

#[cfg(test)]
mod tests;
