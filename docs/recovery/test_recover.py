#!/usr/bin/env python3
# SPDX-License-Identifier: MIT OR Apache-2.0
"""Tests of snapkeep_recover.py on the golden repositories: test_recover.py FOLDER-OF-THEM

The folder's expected.json was written by the Rust program. Our own BLAKE3 and argon2id are used, whatever is
installed, because they are what must be right where nothing is.
"""

import contextlib
import io
import json
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import unittest

sys.dont_write_bytecode = True
sys.modules["blake3"] = sys.modules["argon2"] = None
sys.modules["cryptography.hazmat.primitives.kdf.argon2"] = None
import snapkeep_recover as recover  # noqa: E402

GOLDEN = sys.argv.pop(1)


def content(name):
    with open(os.path.join(GOLDEN, name), encoding="utf-8") as file:
        return file.read()


def opened(folder, **how):
    options = {key: how.pop(key) for key in ("use_index", "use_config") if key in how}
    repository = recover.Repository(folder, **options)
    repository.unlock(**(how or ({"key_file": content("key-file")} if "encrypted" in folder else {})))
    return repository


def everything(repository):
    """What expected.json has of a repository."""
    found = {}
    for name in repository.names("snapshots"):
        name = name[len("snapshots/"):]
        snapshot, disks = repository.archive(name), {}
        for disk in snapshot["disks"]:
            whole = bytearray(disk["size"])
            for offset, length, identity in repository.chunks(disk):
                whole[offset:offset + length] = repository.chunk(length, identity)
            disks[disk["device"]] = [disk["size"], recover.b3(bytes(whole)).hex()]
        guest, firewall = (repository.configuration(snapshot[what]) for what in ("guest_config", "firewall_config"))
        found[name] = {"disks": disks, **tree_of(repository, snapshot), "guest_config": recover.b3(guest).hex(),
                       "firewall_config": None if firewall is None else recover.b3(firewall).hex()}
    return found


def tree_of(repository, snapshot):
    if not snapshot.get("tree"):
        return {}
    lines = listing(repository, snapshot["tree"])
    return {"tree": [len(lines), recover.b3("".join(lines).encode()).hex()]}


def listing(repository, tree):
    """A line for each entry, as the Rust program's test of the golden repositories has it."""
    lines = []
    for path, entry in repository.entries(tree):
        rest = ""
        if entry.kind == recover.FILE:
            runs = []
            for offset, data in repository.data(entry):
                if runs and runs[-1][0] + len(runs[-1][1]) == offset:
                    runs[-1] = runs[-1][0], runs[-1][1] + data
                else:
                    runs.append((offset, data))
            runs = ",".join("%d:%d:%s" % (offset, len(data), recover.b3(data).hex()) for offset, data in runs)
            rest = "%d %d %s" % (entry.size, entry.links, runs)
        elif entry.kind in (recover.SYMLINK, recover.HARD_LINK):
            rest = entry.target.hex()
        elif entry.kind in (recover.CHARACTER, recover.BLOCK):
            rest = "%d:%d" % entry.device
        xattrs = ",".join(name.hex() + "=" + value.hex() for name, value in entry.xattrs)
        lines.append("%s %d %d %d %d %d %d %d %s %s\n" % (
            path.hex(), entry.kind, entry.mode, entry.uid, entry.gid, entry.seconds, entry.nanos, entry.flags, xattrs,
            rest))
    return lines


def pieces(repository):
    """The same without hashing zeroes: what is in which place."""
    found = {}
    for name in repository.names("snapshots"):
        snapshot = repository.archive(name[len("snapshots/"):])
        found[name] = [(d["device"], d["size"], [(at, repository.chunk(n, i)) for at, n, i in repository.chunks(d)])
                       for d in snapshot["disks"]]
        if snapshot.get("tree"):
            found[name] += tree_pieces(repository, snapshot["tree"])
        found[name] += [repository.configuration(snapshot[w]) for w in ("guest_config", "firewall_config")]
    return found


def tree_pieces(repository, tree):
    return [(path, vars(entry), list(repository.data(entry)) if entry.kind == recover.FILE else None)
            for path, entry in repository.entries(tree)]


def run(*arguments):
    """The program itself: exit code, standard output, standard error."""
    out, err = io.StringIO(), io.StringIO()
    old, sys.argv = sys.argv, ["snapkeep_recover.py", *arguments]
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            code = recover.main()
    finally:
        sys.argv = old
    return code or 0, out.getvalue(), err.getvalue()


class Tests(unittest.TestCase):
    maxDiff = None

    def setUp(self):
        self.folder = tempfile.mkdtemp(prefix="snapkeep-recover-")
        self.addCleanup(shutil.rmtree, self.folder)

    def copy(self, name):
        return shutil.copytree(os.path.join(GOLDEN, name), os.path.join(self.folder, name))

    def test_argon2id_gives_what_rfc_9106_says(self):
        tag = recover.argon2id_python(b"\1" * 32, b"\2" * 16, 3, 32, 4, b"\3" * 8, b"\4" * 12)
        self.assertEqual(tag.hex(), "0d640df58d78766c08c037a34a8b53c9d01ef0452d75b65eb52520e96b01e659")

    def test_both_golden_repositories_restore_to_what_the_rust_program_restores(self):
        for name, expected in json.loads(content("expected.json")).items():
            for use_index in (True, False):
                repository = opened(os.path.join(GOLDEN, name), use_index=use_index)
                self.assertEqual(everything(repository), expected)

    def test_what_every_released_version_wrote_restores(self):
        versions = sorted(os.listdir(os.path.join(GOLDEN, "released")))
        self.assertTrue(versions)
        for version in versions:
            folder = os.path.join("released", version)
            expected = json.loads(content(os.path.join(folder, "expected.json")))["archives"]
            for how in ({"key_file": content(os.path.join(folder, "key-file"))},
                        {"kit": content(os.path.join(folder, "recovery-kit"))}):
                found = everything(opened(os.path.join(GOLDEN, folder, "repository"), **how))
                self.assertEqual({name: found.get(name) for name in expected}, expected)

    def test_each_of_the_keys_opens_the_encrypted_one(self):
        folder = os.path.join(GOLDEN, "encrypted")
        for how in ({"passphrase": content("passphrase").rstrip("\n").encode()}, {"kit": content("recovery-kit")},
                    {"key_file": content("key-file")}):
            self.assertEqual(len(list(opened(folder, **how).archives())), 3)
        for how in ({"passphrase": b"wrong"}, {"kit": content("key-file")}, {}):
            with self.assertRaises(recover.Damaged):
                recover.Repository(folder).unlock(**how)

    def test_the_commands_list_show_and_restore(self):
        key = ("--repository", os.path.join(GOLDEN, "encrypted"), "--key-file", os.path.join(GOLDEN, "key-file"))
        code, out, _ = run(*key, "list")
        self.assertEqual((code, out.count("\n")), (0, 3))
        archive = out.split()[0]
        self.assertIn("name: golden", run(*key, "show", archive)[1])
        target = os.path.join(self.folder, "disk")
        self.assertEqual(run(*key, "restore", archive, "drive-scsi0", target)[0], 0)
        size, digest = json.loads(content("expected.json"))["encrypted"][archive]["disks"]["drive-scsi0"]
        with open(target, "rb") as file:
            self.assertEqual(recover.b3(file.read()).hex(), digest)
        self.assertEqual(os.path.getsize(target), size)
        code, _, err = run(*key, "restore", archive, "drive-scsi0", target)
        self.assertEqual(code, 1)
        self.assertIn("exists already", err)

    def test_a_tree_becomes_a_tar_file_that_tar_takes(self):
        folder = os.path.join(GOLDEN, "open")
        archive = run("--repository", folder, "list")[1].split()[0]
        target = os.path.join(self.folder, "tar")
        code, _, err = run("--repository", folder, "restore-tree", archive, target)
        self.assertEqual((code, "102 entries" in err), (0, True), err)
        repository = opened(folder)
        wanted = {}
        for path, entry in repository.entries(repository.archive(archive)["tree"]):
            wanted[os.fsdecode(path) or "."] = entry
        socket = wanted.pop("socket")
        self.assertEqual(socket.kind, recover.SOCKET)
        with tarfile.open(target) as tar:
            found = {member.name: member for member in tar}
            self.assertEqual(sorted(found), sorted(wanted))
            for name, entry in wanted.items():
                member = found[name]
                self.assertEqual((member.mode, member.uid, member.gid), (entry.mode, entry.uid, entry.gid), name)
                self.assertAlmostEqual(member.mtime, entry.seconds + entry.nanos / 1e9, 3)
                for key, value in entry.xattrs:
                    self.assertEqual(os.fsencode(member.pax_headers["SCHILY.xattr." + os.fsdecode(key)]), value)
                if entry.kind == recover.FILE:
                    self.assertEqual(member.size, entry.size)
                    file = tar.extractfile(member)
                    for offset, data in repository.data(entry):
                        file.seek(offset)
                        self.assertEqual(file.read(len(data)), data)
            self.assertEqual(found["hole"].size, 123456789012)
            self.assertEqual(found["hard link"].linkname, "dir/below/first\n")
            self.assertEqual(os.fsencode(found["symlink"].linkname), b"../etc/\xff")
            self.assertEqual((found["sda"].devmajor, found["sda"].devminor), (8, (1 << 20) - 1))

    @unittest.skipUnless(shutil.which("tar"), "needs tar")
    def test_gnu_tar_finds_the_same_files_in_it(self):
        folder, target = os.path.join(GOLDEN, "open"), os.path.join(self.folder, "tar")
        archive = run("--repository", folder, "list")[1].split()[0]
        self.assertEqual(run("--repository", folder, "restore-tree", archive, target)[0], 0)
        repository = opened(folder)
        for path, entry in repository.entries(repository.archive(archive)["tree"]):
            if entry.kind == recover.FILE and entry.size < 1 << 20:
                wanted = bytearray(entry.size)
                for offset, data in repository.data(entry):
                    wanted[offset:offset + len(data)] = data
                tar = ["tar", "--no-wildcards", "-xOf", target, "--", path]
                found = subprocess.run(tar, stdout=subprocess.PIPE, check=True).stdout
                self.assertEqual(found, bytes(wanted), path)
        listed = subprocess.run(["tar", "-tf", target], stdout=subprocess.PIPE, check=True).stdout
        self.assertEqual(listed.count(b"\n"), len(list(repository.entries(repository.archive(archive)["tree"]))) - 1)

    def test_a_restore_that_fails_leaves_no_file(self):
        folder = self.copy("open")
        repository = opened(folder)
        archive = run("--repository", folder, "list")[1].splitlines()[1].split()[0]
        _, _, identity = next(repository.chunks(repository.archive(archive)["disks"][0]))
        pack, _, offset = repository.places[recover.DATA][identity][0][:3]
        flip(os.path.join(folder, pack), offset)
        target = os.path.join(self.folder, "disk")
        code, _, err = run("--repository", folder, "restore", archive, "drive-scsi0", target)
        self.assertEqual(code, 1)
        self.assertIn(pack, err)
        self.assertEqual(sorted(os.listdir(self.folder)), ["open"])

    def test_an_unknown_feature_is_refused_by_name(self):
        for feature, refused in (("incompatible-rings-1", True), ("strange-rings-1", True), ("compatible-rings-1", False)):
            folder = self.copy("open")
            os.mkdir(os.path.join(folder, "features"))
            open(os.path.join(folder, "features", feature), "wb").close()
            code, _, err = run("--repository", folder, "list")
            self.assertEqual((code == 1, "rings-1" in err), (refused, refused))
            shutil.rmtree(folder)

    def test_a_damaged_config_is_refused_unless_it_is_ignored(self):
        folder = self.copy("open")
        flip(os.path.join(folder, "config"), 80)
        code, _, err = run("--repository", folder, "list")
        self.assertEqual(code, 1)
        self.assertIn("config is damaged", err)
        self.assertEqual(run("--repository", folder, "--ignore-config", "list")[0], 0)

    def test_a_bad_key_slot_does_not_block_the_others(self):
        folder = self.copy("encrypted")
        for number, body in enumerate((b"[]", b'{"kind":"key-file","salt":7}', b"\xff", b'{"kind":"new"}')):
            raw = b"SNAPKEEPK\1\0\0" + len(body).to_bytes(4, "little") + body
            with open(os.path.join(folder, "keys", "%016x" % number), "wb") as file:
                file.write(raw + recover.b3(raw))
        self.assertEqual(len(list(opened(folder).archives())), 3)

    def test_an_index_that_tells_of_another_length_does_not_count(self):
        folder = self.copy("open")
        for name in opened(folder).names("packs"):
            with open(os.path.join(folder, name), "ab") as file:
                file.write(b"x")
        with self.assertRaisesRegex(recover.Damaged, "no pack holds it"):
            everything(opened(folder))

    def test_flipped_bytes_are_refused_or_change_nothing(self):
        for name in ("encrypted", "open"):
            folder = self.copy(name)
            good = pieces(opened(folder))
            tried = [0, 0]
            files = [os.path.join(path, file) for path, _, names in os.walk(folder) for file in sorted(names)]
            for path in sorted(files):
                size = os.path.getsize(path)
                for at in sorted({*range(0, size, 83 if size < 4096 else 9973), size - 1, size - 20}):
                    flip(path, at)
                    try:
                        self.assertEqual(pieces(opened(folder)), good, "%s at %d" % (path, at))
                        tried[1] += 1
                    except (recover.Damaged, OSError) as error:
                        self.assertTrue(named(path, str(error)), "%s at %d: %s" % (path, at, error))
                        tried[0] += 1
                    flip(path, at)
            print("%s: %d bytes flipped: %d refused, %d without effect, 0 wrong" % (name, sum(tried), *tried))

    def test_files_that_are_cut_are_refused_or_change_nothing(self):
        folder = self.copy("open")
        good = pieces(opened(folder))
        for path in [os.path.join(path, file) for path, _, names in os.walk(folder) for file in names]:
            with open(path, "rb") as file:
                whole = file.read()
            for length in (0, 1, 15, 16, 47, 128, len(whole) // 2, len(whole) - 1):
                with open(path, "wb") as file:
                    file.write(whole[:length])
                try:
                    self.assertEqual(pieces(opened(folder)), good, "%s at %d" % (path, length))
                except (recover.Damaged, OSError):
                    pass
            with open(path, "wb") as file:
                file.write(whole)


def named(path, error):
    """Whether an error says which object it is about: the file, or a chunk or node that lay in it."""
    parts = path.split(os.sep)
    return parts[-1] in error or "keys" in parts and "keys/" in error or "packs" in parts and "no pack holds it" in error


def flip(path, at):
    with open(path, "r+b") as file:
        file.seek(at)
        byte = file.read(1)[0]
        file.seek(at)
        file.write(bytes([byte ^ 0x20]))


recover.warn = lambda text: None

if __name__ == "__main__":
    unittest.main(verbosity=1)
