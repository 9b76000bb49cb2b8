#!/usr/bin/env python3
# SPDX-License-Identifier: MIT OR Apache-2.0
"""Restore disks and containers' files from a Snapkeep repository without Snapkeep.

Written from docs/FORMAT.md alone, as the proof that the document suffices, and as documentation itself: the
section numbers below are those of that document. It only reads. It needs Python 3.9 and, on Debian,

    apt install python3-cryptography python3-zstandard

and uses the Python packages `blake3` and `argon2` where they are installed: they are faster than what is here.
"""

import argparse
import contextlib
import functools
import hashlib
import hmac
import json
import os
import re
import struct
import sys
import tarfile
import time

import zstandard
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM, ChaCha20Poly1305
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

FIRST_LINE = b"snapkeep repository, format 1"
FEATURES = {"trees-1"}
DATA, METADATA = 0, 1
CHUNK_MAX, PACK_MAX, BLOBS_MAX, SEALED_MAX, SMALL_MAX = 4 << 20, 64 << 20, 65536, 64 << 20, 64 << 10
DISK_MAX, DISKS_MAX, GUEST_CONFIG_MAX, SLOTS_MAX = 2**63 - 1, 256, 1 << 20, 64
MEMORY_KIB_MAX, PASSES_MAX, ARGON2_LANES_MAX = 1 << 20, 16, 16

NODE_MAX, INLINE_MAX, LEVELS_MAX, DEPTH_MAX, PATH_MAX = 2 << 20, 4096, 8, 8192, 1 << 20
XATTRS_MAX, XATTR_VALUE_MAX, XATTRS_TOTAL_MAX, EXTENTS_INLINE, TARGET_MAX = 4096, 65536, 1 << 20, 8, 4095
FILE, DIRECTORY, SYMLINK, HARD_LINK, FIFO, SOCKET, CHARACTER, BLOCK = range(1, 9)

# Chapter 3: a file whose name is none of these is not part of the repository.
PART = r"(?!\.)[A-Za-z0-9.+=_:-]{1,128}"
NAMES = {folder: re.compile(folder + pattern) for folder, pattern in (
    ("keys", "/[0-9a-f]{16}"), ("packs", "/([0-9a-f]{2})/\\1[0-9a-f]{62}"), ("index", "/[0-9a-f]{32}/[0-9]{8}"),
    ("snapshots", "(/" + PART + "){4}"), ("features", "/" + PART))}


class Damaged(Exception):
    """An object that is not what it must be; the message names it."""


@contextlib.contextmanager
def reading(what):
    """Whatever goes wrong while an object is taken apart is damage to this object."""
    try:
        yield
    except (ValueError, TypeError, KeyError, IndexError, AttributeError, OverflowError, RecursionError,
            struct.error) as error:
        raise Damaged("%s is malformed: %s: %s" % (what, type(error).__name__, error)) from None


def unhex(text, length):
    """Hexadecimal of so many bytes, in lower case."""
    if not isinstance(text, str) or not re.fullmatch("[0-9a-f]{%d}" % (2 * length), text):
        raise ValueError("there should be %d hexadecimal digits" % (2 * length))
    return bytes.fromhex(text)


def whole(value, least, most):
    """A whole number between two limits."""
    if type(value) is not int or not least <= value <= most:
        raise ValueError("%r is not a number from %d to %d" % (value, least, most))
    return value


# ---------------------------------------------------------------------------------------------------------------
# BLAKE3. A Python integer serves as a vector: each 64-bit slot holds one 32-bit word of another block ("lane"),
# so that an addition or a rotation handles up to LANES blocks at once and carries do not reach the neighbour.

LANES = 256
IV = (0x6A09E667, 0xBB67AE85, 0x3C6EF372, 0xA54FF53A, 0x510E527F, 0x9B05688C, 0x1F83D9AB, 0x5BE0CD19)
ORDER = (2, 6, 3, 10, 7, 0, 4, 13, 1, 11, 12, 5, 9, 14, 15, 8)
CHUNK_START, CHUNK_END, PARENT, ROOT, KEYED, DERIVE_CONTEXT, DERIVE_MATERIAL = (1 << i for i in range(7))
COLUMNS = ((0, 4, 8, 12), (1, 5, 9, 13), (2, 6, 10, 14), (3, 7, 11, 15))
DIAGONALS = ((0, 5, 10, 15), (1, 6, 11, 12), (2, 7, 8, 13), (3, 4, 9, 14))


@functools.lru_cache(maxsize=None)
def ones(lanes):
    """The number 1 in every lane."""
    return int.from_bytes(b"\1\0\0\0\0\0\0\0" * lanes, "little")


def compress(chain, words, counter, block_len, flags, lanes):
    """The compression function on every lane; returns the eight words of the next chaining value."""
    one, mask = ones(lanes), ones(lanes) * 0xFFFFFFFF
    v = list(chain) + [IV[i] * one for i in range(4)] + [counter, 0, block_len * one, flags * one]
    for turn in range(7):
        m = iter(words)
        for a, b, c, d in COLUMNS + DIAGONALS:
            va, vb, vc, vd = v[a], v[b], v[c], v[d]
            va = (va + vb + next(m)) & mask
            vd ^= va
            vd = (vd >> 16 | vd << 16) & mask
            vc = (vc + vd) & mask
            vb ^= vc
            vb = (vb >> 12 | vb << 20) & mask
            va = (va + vb + next(m)) & mask
            vd ^= va
            vd = (vd >> 8 | vd << 24) & mask
            vc = (vc + vd) & mask
            vb ^= vc
            v[a], v[b], v[c], v[d] = va, (vb >> 7 | vb << 25) & mask, vc, vd
        words = [words[i] for i in ORDER]
    return [v[i] ^ v[i + 8] for i in range(8)]


def lanes_from(words, offset, step, lanes):
    """The 16 message words that begin at `offset` in each lane's part of `step` words."""
    return [int.from_bytes(struct.pack("<%dQ" % lanes, *words[offset + w::step]), "little") for w in range(16)]


def bytes_from(chain, lanes):
    out = [0] * (8 * lanes)
    for w, vector in enumerate(chain):
        out[w::8] = struct.unpack("<%dQ" % lanes, vector.to_bytes(8 * lanes, "little"))
    return struct.pack("<%dI" % len(out), *out)


def full_chunks(data, first, key, flags):
    """Chaining values of whole 1,024-byte chunks, the first of which is number `first`."""
    lanes = len(data) // 1024
    words = struct.unpack("<%dI" % (len(data) // 4), data)
    counter = int.from_bytes(struct.pack("<%dQ" % lanes, *range(first, first + lanes)), "little")
    chain = [word * ones(lanes) for word in key]
    for block in range(16):
        edge = (CHUNK_START if block == 0 else 0) | (CHUNK_END if block == 15 else 0)
        chain = compress(chain, lanes_from(words, 16 * block, 256, lanes), counter, 64, flags | edge, lanes)
    return bytes_from(chain, lanes)


def last_chunk(data, number, key, flags, root):
    chain, blocks = list(key), max(1, (len(data) + 63) // 64)
    for i in range(blocks):
        block = data[64 * i:64 * i + 64]
        edge = (CHUNK_START if i == 0 else 0) | ((CHUNK_END | root) if i == blocks - 1 else 0)
        words = struct.unpack("<16I", block.ljust(64, b"\0"))
        chain = compress(chain, words, number, len(block), flags | edge, 1)
    return bytes_from(chain, 1)


def blake3_python(data, key=IV, flags=0):
    """32 bytes of BLAKE3 of `data`."""
    last = max(0, (len(data) - 1) // 1024)
    level = bytearray()
    for first in range(0, last, LANES):
        end = min(first + LANES, last)
        level += full_chunks(data[1024 * first:1024 * end], first, key, flags)
    level += last_chunk(data[1024 * last:], last, key, flags, ROOT if last == 0 else 0)
    while len(level) > 32:  # pairs become parents; an odd one out goes up a level unchanged
        pairs, above = len(level) // 64, bytearray()
        for first in range(0, pairs, LANES):
            lanes = min(LANES, pairs - first)
            words = struct.unpack("<%dI" % (16 * lanes), level[64 * first:64 * (first + lanes)])
            kind = flags | PARENT | (ROOT if len(level) == 64 else 0)
            chain = [word * ones(lanes) for word in key]
            above += bytes_from(compress(chain, lanes_from(words, 0, 16, lanes), 0, 64, kind, lanes), lanes)
        level = above + level[64 * pairs:]
    return bytes(level)


def python_hash(data):
    return blake3_python(data)


def python_keyed(key, data):
    return blake3_python(data, struct.unpack("<8I", key), KEYED)


def python_derive(context, material):
    key = blake3_python(context.encode(), IV, DERIVE_CONTEXT)
    return blake3_python(material, struct.unpack("<8I", key), DERIVE_MATERIAL)


try:
    from blake3 import blake3 as _native

    def b3(data):
        return _native(data).digest()

    def b3_keyed(key, data):
        return _native(data, key=key).digest()

    def b3_derive(context, material):
        return _native(material, derive_key_context=context).digest()
except ImportError:
    b3, b3_keyed, b3_derive = python_hash, python_keyed, python_derive


# ---------------------------------------------------------------------------------------------------------------
# AES-256-GCM and HPKE

def open_gcm(key, number, sealed, associated, what):
    """3.2: the nonce is a counter of 8 bytes and 4 zero bytes."""
    try:
        return AESGCM(key).decrypt(struct.pack("<QI", number, 0), sealed, associated)
    except InvalidTag:
        raise Damaged("%s does not open: it is damaged, moved, or of another key" % what) from None


KEM, SUITE = b"KEM\x00\x20", b"HPKE\x00\x20\x00\x01\x00\x03"


def extract(suite, salt, label, material):
    return hmac.new(salt or bytes(32), b"HPKE-v1" + suite + label + material, hashlib.sha256).digest()


def expand(suite, secret, label, info, length):
    """RFC 9180 4 with RFC 5869 2.3; one block of HMAC is as much as is ever asked for."""
    labeled = struct.pack(">H", length) + b"HPKE-v1" + suite + label + info
    return hmac.new(secret, labeled + b"\1", hashlib.sha256).digest()[:length]


def derive_private_key(material):
    """RFC 9180 7.1.3 for X25519."""
    secret = extract(KEM, b"", b"dkp_prk", material)
    return X25519PrivateKey.from_private_bytes(expand(KEM, secret, b"sk", b"", 32))


def open_hpke(private, enc, sealed, info, what):
    """RFC 9180 base mode, first message."""
    try:
        shared = private.exchange(X25519PublicKey.from_public_bytes(enc))
        public = private.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
        shared = expand(KEM, extract(KEM, b"", b"eae_prk", shared), b"shared_secret", enc + public, 32)
        context = b"\0" + extract(SUITE, b"", b"psk_id_hash", b"") + extract(SUITE, b"", b"info_hash", info)
        secret = extract(SUITE, shared, b"secret", b"")
        key, nonce = expand(SUITE, secret, b"key", context, 32), expand(SUITE, secret, b"base_nonce", context, 12)
        return ChaCha20Poly1305(key).decrypt(nonce, sealed, b"")
    except (InvalidTag, ValueError):
        raise Damaged("the key of %s does not open: the pack is damaged, or of another repository" % what) from None


# ---------------------------------------------------------------------------------------------------------------
# 3.2 and 3.3: keys and envelopes

def parse_key(text, prefix):
    for line in text.splitlines():
        if line.strip().startswith(prefix + "-"):
            digits = line.strip()[len(prefix):].replace("-", "")
            try:
                raw = bytes.fromhex(digits)
            except ValueError:
                raw = b""
            if len(raw) != 36:
                raise Damaged("the line %s-… must hold 72 hexadecimal digits" % prefix)
            if b3(prefix.encode() + raw[:32])[:4] != raw[32:]:
                raise Damaged("the checksum of the line %s-… does not match: a digit is wrong" % prefix)
            return raw[:32]
    raise Damaged("there is no line that begins with %s-" % prefix)


def argon2id(passphrase, salt, costs):
    """The key of a passphrase slot, by the fastest means there is."""
    if set(costs) != {"memory_kib", "passes", "lanes"}:
        raise ValueError("argon2id has other parameters")
    lanes = whole(costs["lanes"], 1, ARGON2_LANES_MAX)
    memory, passes = whole(costs["memory_kib"], 8 * lanes, MEMORY_KIB_MAX), whole(costs["passes"], 1, PASSES_MAX)
    try:
        from argon2.low_level import Type, hash_secret_raw
        return hash_secret_raw(passphrase, salt, passes, memory, lanes, 32, Type.ID)
    except ImportError:
        pass
    try:
        from cryptography.exceptions import UnsupportedAlgorithm
        from cryptography.hazmat.primitives.kdf.argon2 import Argon2id
        return Argon2id(salt=salt, length=32, iterations=passes, lanes=lanes, memory_cost=memory).derive(passphrase)
    except (ImportError, UnsupportedAlgorithm):
        pass
    if memory * passes > 4096:
        warn("argon2id in plain Python takes minutes; python3-argon2 would take a second")
    return argon2id_python(passphrase, salt, passes, memory, lanes)


# Argon2id, RFC 9106, in plain Python: a block is a list of 128 words of 64 bits.

M64, M32 = 2**64 - 1, 2**32 - 1
ROWS = [range(16 * i, 16 * i + 16) for i in range(8)]
ROUNDS = ROWS + [[16 * i + j + k for i in range(8) for k in (0, 1)] for j in range(0, 16, 2)]


def blake2_long(data, length):
    """H' of RFC 9106 3.3."""
    data = struct.pack("<I", length) + data
    if length <= 64:
        return hashlib.blake2b(data, digest_size=length).digest()
    part, out = hashlib.blake2b(data).digest(), b""
    while length - len(out) > 64:
        out += part[:32]
        rest = length - len(out)
        part = hashlib.blake2b(part, digest_size=min(64, rest)).digest()
    return out + part


def argon2_compress(x, y):
    """G of RFC 9106 3.5: rows, then columns, go through the permutation of BLAKE2b with multiplications."""
    r = [a ^ b for a, b in zip(x, y)]
    v = list(r)
    for places in ROUNDS:
        w = [v[i] for i in places]
        for a, b, c, d in COLUMNS + DIAGONALS:
            va, vb, vc, vd = w[a], w[b], w[c], w[d]
            for first, second in ((32, 24), (16, 63)):
                va = (va + vb + 2 * (va & M32) * (vb & M32)) & M64
                vd ^= va
                vd = (vd >> first | vd << (64 - first)) & M64
                vc = (vc + vd + 2 * (vc & M32) * (vd & M32)) & M64
                vb ^= vc
                vb = (vb >> second | vb << (64 - second)) & M64
            w[a], w[b], w[c], w[d] = va, vb, vc, vd
        for i, word in zip(places, w):
            v[i] = word
    return [a ^ b for a, b in zip(r, v)]


def argon2id_python(password, salt, passes, memory, lanes, secret=b"", associated=b""):
    """32 bytes of argon2id, version 0x13."""
    first = struct.pack("<6I", lanes, 32, memory, passes, 0x13, 2)
    for part in (password, salt, secret, associated):
        first += struct.pack("<I", len(part)) + part
    first = hashlib.blake2b(first).digest()
    segment = memory // (4 * lanes)
    columns = 4 * segment
    blocks = [[None] * columns for _ in range(lanes)]
    for lane in range(lanes):
        for column in (0, 1):
            seed = first + struct.pack("<II", column, lane)
            blocks[lane][column] = struct.unpack("<128Q", blake2_long(seed, 1024))
    for turn in range(passes):
        for part in range(4):
            for lane in range(lanes):
                argon2_segment(blocks, turn, part, lane, segment, passes)
    last = [0] * 128
    for lane in blocks:
        last = [a ^ b for a, b in zip(last, lane[-1])]
    return blake2_long(struct.pack("<128Q", *last), 32)


def argon2_segment(blocks, turn, part, lane, segment, passes):
    lanes, columns, zero = len(blocks), 4 * segment, [0] * 128
    row, addresses = blocks[lane], None
    for i in range(2 if turn == 0 and part == 0 else 0, segment):
        column = part * segment + i
        previous = row[column - 1]
        if turn == 0 and part < 2:  # the first half of the first pass does not depend on the password
            if addresses is None or i % 128 == 0:
                counted = [turn, lane, part, lanes * columns, passes, 2, i // 128 + 1] + [0] * 121
                addresses = argon2_compress(zero, argon2_compress(zero, counted))
            word = addresses[i % 128]
        else:
            word = previous[0]
        other = lane if turn == 0 and part == 0 else (word >> 32) % lanes
        start = 0 if turn == 0 else (part + 1) % 4 * segment
        size = part * segment if turn == 0 else 3 * segment
        size += i - 1 if other == lane else (-1 if i == 0 else 0)
        x = (word & M32) ** 2 >> 32
        reference = blocks[other][(start + size - 1 - (size * x >> 32)) % columns]
        new = argon2_compress(previous, reference)
        row[column] = [a ^ b for a, b in zip(new, row[column])] if turn else new


def open_envelope(raw, kind, what):
    """3.3: the body of an envelope, still sealed."""
    if len(raw) < 48 or raw[:8] != b"SNAPKEEP":
        raise Damaged("%s is not an object of Snapkeep, or cut short" % what)
    if raw[8:10] != kind + b"\1" or raw[10:12] != b"\0\0":
        raise Damaged("%s has type and version %r, which this program does not read" % (what, raw[8:12]))
    if struct.unpack_from("<I", raw, 12)[0] != len(raw) - 48:
        raise Damaged("%s is cut short or has grown" % what)
    if b3(raw[:-32]) != raw[-32:]:
        raise Damaged("%s is damaged: its checksum does not match" % what)
    return raw[16:-32]


# ---------------------------------------------------------------------------------------------------------------
# The repository

class Repository:
    def __init__(self, folder, use_index=True, use_config=True):
        self.folder, self.use_index, self.use_config, self.config = folder, use_index, use_config, None
        self.places = {DATA: {}, METADATA: {}}  # identity: [(pack, number, offset, length, length before, flags)]
        self.last_chunk = (None, b"")

    def read(self, name, limit):
        path = os.path.join(self.folder, name)
        with open(path, "rb") as file:
            content = file.read(limit + 1)
        if len(content) > limit:
            raise Damaged("%s is larger than the limit of %d bytes" % (name, limit))
        return content

    def names(self, folder):
        """Names of all files of the format below a folder, in order."""
        found = []
        for path, folders, files in os.walk(os.path.join(self.folder, folder)):
            folders[:] = sorted(f for f in folders if not f.startswith("."))
            found += [os.path.relpath(os.path.join(path, f), self.folder) for f in files]
        return sorted(name for name in found if NAMES[folder].fullmatch(name))

    def read_config(self):
        """3.1 and chapter 9. Every object proves itself, so who asks for it may go on without `config`."""
        if not self.use_config:
            return
        lines = self.read("config", SMALL_MAX).split(b"\n")
        if lines[0] != FIRST_LINE:
            raise Damaged("config begins with %r: it is damaged, or of a version that this program does not know"
                          % lines[0][:80])
        self.signed = b"\n".join(lines[:2]) + b"\n"
        if len(lines) != 5 or lines[4] or lines[2] != b"blake3 " + b3(self.signed).hex().encode():
            raise Damaged("config is damaged: its checksum does not match; --ignore-config goes on without it")
        self.mac = lines[3]
        with reading("config"):
            config = json.loads(lines[1])
            lists = ("incompatible", "read_only_compatible", "compatible")
            unknown = set(config) - {"version", "repository", "chunk_size"} - set(lists)
            if config["version"] != 1 or unknown:
                raise Damaged("config has version %r and the unknown fields %s" % (config["version"], sorted(unknown)))
            if any(type(config[key]) is not list or any(type(f) is not str for f in config[key]) for key in lists):
                raise ValueError("its features are no lists of names")
            unhex(config["repository"], 16)
            chunk_size(config["chunk_size"])
            unknown = set(config["incompatible"]) - FEATURES
        if unknown:
            raise Damaged("this repository needs %s, which this program does not know" % ", ".join(sorted(unknown)))
        self.config = config

    def read_features(self):
        """Chapter 9: what was added to the repository later."""
        for name in self.names("features"):
            kind, _, feature = name[len("features/"):].partition("-")
            if kind not in ("compatible", "read_only_compatible") and not (
                    kind == "incompatible" and feature in FEATURES):
                raise Damaged("this repository needs %s, which this program does not know" % name)

    def unlock(self, kit=None, key_file=None, passphrase=None):
        """Find the root key and derive all others (3.2)."""
        self.read_config()
        self.read_features()
        secret = parse_key(key_file, "snapkeep-key-1") if key_file else None
        problems = []
        if kit:
            self.derive_keys(parse_key(kit, "snapkeep-recovery-1"))
            return self.read_index()
        for name in self.names("keys")[:SLOTS_MAX]:
            try:
                root = self.open_slot(name, secret, passphrase)
                if root:
                    self.derive_keys(root)
                    return self.read_index()
            except (Damaged, OSError) as error:
                problems.append(str(error))
        raise Damaged("no key slot in keys/ opens with what was given%s" % "".join("\n  " + p for p in problems))

    def derive_keys(self, root):
        """3.2, and the MAC of `config`, which tells whether it is this repository's root key."""
        self.data_id, self.metadata_id, self.metadata, config = (
            b3_derive("snapkeep 1 " + context, root)
            for context in ("data chunk id", "metadata chunk id", "metadata", "config"))
        self.private = derive_private_key(b3_derive("snapkeep 1 data key pair", root))
        if self.config and self.mac != b"mac " + b3_keyed(config, self.signed).hex().encode():
            raise Damaged("config was not made with this key: the key is another repository's, or config was changed")

    def open_slot(self, name, secret, passphrase):
        """The root key, or None if nothing was given for a slot of this kind."""
        body = open_envelope(self.read(name, SMALL_MAX), b"K", name)
        with reading(name):
            slot = json.loads(body)
            if slot["kind"] == "open":
                return unhex(slot["root"], 32)
            if slot["kind"] == "key-file" and secret:
                key = b3_keyed(secret, unhex(slot["salt"], 32))
            elif slot["kind"] == "writer" and secret:
                return self.refuse_writer(name, slot, secret)
            elif slot["kind"] == "passphrase" and passphrase:
                key = argon2id(passphrase, unhex(slot["salt"], 32), slot["argon2id"])
            else:
                return None
            sealed = unhex(slot["sealed"], 48)
        return open_gcm(key, 0, sealed, b"snapkeep 1 key slot", name)

    def refuse_writer(self, name, slot, secret):
        """A host that may only write has no key that opens data: says so, if the key file is its own."""
        key, sealed = b3_keyed(secret, unhex(slot["salt"], 32)), unhex(slot["sealed"], 176)
        try:
            AESGCM(key).decrypt(bytes(12), sealed, b"snapkeep 1 writer slot")
        except InvalidTag:
            return None
        whose = re.sub(r"[^ -~]", "?", str(slot.get("label", {}).get("text", "a host")))
        raise Damaged("%s: this key file may only write (it is that of %s), so it restores nothing: "
                      "use an owner's key or the recovery kit" % (name, whose))

    def salted(self, salt, purpose):
        return b3_keyed(self.metadata, salt + bytes([purpose]))

    def open_sealed(self, name, kind):
        """An index object or a snapshot: the name is authenticated, so a file that was moved does not open."""
        raw = self.read(name, SEALED_MAX)
        body = open_envelope(raw, kind, name)
        if len(body) < 48:
            raise Damaged("%s is too short for what is sealed in it" % name)
        return open_gcm(self.salted(body[:32], 0), 0, body[32:], raw[:16] + name.encode(), name)

    # 3.4 and 3.5: where the blobs are

    def add_entries(self, pack, kind, table, first, count, size):
        """Takes the entries of a pack's table. Blobs lie without gaps from the header to the table."""
        at, entries = 128, []
        for number in range(count):
            identity, offset, length, plain, flags = struct.unpack_from("<32s4I", table, first + 48 * number)
            if offset != at or length < 16 or plain > CHUNK_MAX or flags > 1:
                raise Damaged("%s: entry %d of its table is impossible" % (pack, number))
            at += length
            entries.append((identity, (pack, number, offset, length, plain, flags)))
        if at + 48 * count + 16 + 16 != size:
            raise Damaged("%s: its table does not lie behind its blobs" % pack)
        for identity, place in entries:
            self.places[kind].setdefault(identity, []).append(place)

    def read_index(self):
        left = {name: os.path.getsize(os.path.join(self.folder, name)) for name in self.names("packs")}
        for name in self.names("index") if self.use_index else []:
            try:
                with reading(name):
                    self.read_index_object(name, left)
            except (Damaged, OSError) as error:
                warn("the packs are read instead of an index object: %s" % error)
        for name in left:
            try:
                with reading(name):
                    self.read_table(name)
            except (Damaged, OSError) as error:
                warn("a pack cannot be used: %s" % error)

    def read_index_object(self, name, left):
        """3.5. A pack that is not there, or has another length, is left for its own table to tell of."""
        table = self.open_sealed(name, b"I")
        at = 4
        for _ in range(struct.unpack_from("<I", table)[0]):
            pack, kind, length, count = struct.unpack_from("<32sB3xII", table, at)
            at += 44
            path = "packs/%s/%s" % (pack.hex()[:2], pack.hex())
            if kind > METADATA or count > BLOBS_MAX or at + 48 * count > len(table):
                raise Damaged("%s: what it says of %s is impossible" % (name, path))
            if left.get(path) == length:
                self.add_entries(path, kind, table, at, count, length)
                del left[path]
            at += 48 * count
        if at != len(table):
            raise Damaged("%s has %d bytes behind its last pack" % (name, len(table) - at))

    def read_table(self, name):
        with open(os.path.join(self.folder, name), "rb") as file:
            header, size = file.read(128), os.fstat(file.fileno()).st_size
            if size < 144 or size > PACK_MAX or header[:10] != b"SNAPKEEPP\1" or header[10] > METADATA or any(header[11:16]):
                raise Damaged("%s is not a pack, or cut short" % name)
            file.seek(size - 16)
            length, count, magic = struct.unpack("<II8s", file.read(16))
            if magic != b"SNAPPACK" or count > BLOBS_MAX or length != 48 * count + 16 or length > size - 144:
                raise Damaged("%s has no table at its end: it is damaged or cut short" % name)
            file.seek(size - 16 - length)
            sealed = file.read(length)
        table = open_gcm(self.salted(header[16:48], 2), 0, sealed, header, "the table of " + name)
        self.add_entries(name, header[10], table, 0, count, size)

    @functools.lru_cache(maxsize=1024)
    def pack_key(self, name, kind):
        with open(os.path.join(self.folder, name), "rb") as file:
            header = file.read(128)
        if len(header) < 128 or header[:16] != b"SNAPKEEPP\1" + bytes([kind]) + bytes(5):
            raise Damaged("%s is not a pack of class %d, or damaged" % (name, kind))
        salt = header[16:48]
        if kind == METADATA:
            return self.salted(salt, 1)
        return open_hpke(self.private, header[48:80], header[80:128], b"snapkeep 1 pack key" + salt, name)

    def blob(self, kind, identity):
        """The plaintext of a chunk or node. Any copy will do, and what is returned has the identity (I4)."""
        problems = []
        for pack, number, offset, length, plain, flags in self.places[kind].get(identity, []):
            try:
                with open(os.path.join(self.folder, pack), "rb") as file:
                    file.seek(offset)
                    sealed = file.read(length)
                what = "blob %d of %s" % (number, pack)
                data = open_gcm(self.pack_key(pack, kind), number, sealed, identity, what)
                if flags & 1:
                    data = decompress(data, plain, what)
                if len(data) != plain or self.identity(kind, data) != identity:
                    raise Damaged("%s is not what its identity says" % what)
                return data
            except (Damaged, OSError) as error:
                problems.append(str(error))
        raise Damaged("%s %s cannot be read: %s" % ("node" if kind else "chunk", identity.hex(),
                                                    "; ".join(problems) or "no pack holds it"))

    def identity(self, kind, data):
        return b3_keyed(self.metadata_id if kind == METADATA else self.data_id, data)

    # 3.6 and 3.7: archives

    def archives(self):
        for name in self.names("snapshots"):
            try:
                yield name[len("snapshots/"):], self.archive(name[len("snapshots/"):])
            except (Damaged, OSError) as error:
                warn("an archive cannot be used: %s" % error)

    def archive(self, name):
        """3.7, with everything that a restore relies on checked."""
        name = "snapshots/" + name
        if not NAMES["snapshots"].fullmatch(name):
            raise Damaged("%s is not an archive's name" % name)
        body = self.open_sealed(name, b"S")
        with reading(name):
            snapshot = json.loads(body)
            needs = set(snapshot.get("needs", [])) - FEATURES
            if needs:
                raise Damaged("%s needs %s, which this program does not know" % (name, ", ".join(sorted(needs))))
            if self.config and snapshot["repository"] != self.config["repository"]:
                raise Damaged("%s was copied here from the repository %s" % (name, snapshot["repository"]))
            whole(snapshot["time"], -2**35, 2**35)
            if len(snapshot["disks"]) > DISKS_MAX:
                raise ValueError("it has %d disks" % len(snapshot["disks"]))
            tree = snapshot.get("tree")
            if tree is not None:
                if snapshot["disks"] or "trees-1" not in snapshot.get("needs", []):
                    raise ValueError("it has a tree beside disks, or without needing trees-1")
                unhex(tree["root"], 32)
                whole(tree["entries"], 1, 2**64 - 1)
                whole(tree["size"], 0, 2**64 - 1)
            for disk in snapshot["disks"]:
                if not isinstance(disk["device"], str):
                    raise ValueError("a disk has no name")
                whole(disk["size"], 0, DISK_MAX)
                chunk_size(disk["chunk_size"])
                if disk["root"] is not None:
                    unhex(disk["root"], 32)
            for reference in (snapshot["guest_config"], snapshot["firewall_config"] or {"chunk": None, "length": 0}):
                whole(reference["length"], 0, GUEST_CONFIG_MAX)
                if (reference["chunk"] is None) != (reference["length"] == 0):
                    raise ValueError("a configuration has length %d" % reference["length"])
                if reference["chunk"] is not None:
                    unhex(reference["chunk"], 32)
        return snapshot

    def chunks(self, disk):
        """All chunks of a disk that are not zero: (offset, length, identity), in order."""
        size, step = disk["size"], disk["chunk_size"]
        total, span = -(-size // step), 1  # span: chunks below one child of the node
        while span * 64 < total:
            span *= 64

        def walk(identity, first, span):
            node = self.blob(METADATA, identity)
            bits = int.from_bytes(node[:8], "little")
            if len(node) < 8 or len(node) != 8 + 32 * bin(bits).count("1"):
                raise Damaged("node %s is malformed" % identity.hex())
            at = 8
            for i in range(64):
                if not bits >> i & 1:
                    continue
                child, number = node[at:at + 32], first + i * span
                at += 32
                if number >= total:
                    raise Damaged("node %s names what lies behind the disk's end" % identity.hex())
                if span > 1:
                    yield from walk(child, number, span // 64)
                else:
                    yield number * step, min(step, size - number * step), child

        if disk["root"] is not None:
            yield from walk(bytes.fromhex(disk["root"]), 0, span)

    def chunk(self, length, identity):
        data = self.blob(DATA, identity)
        if len(data) != length:
            raise Damaged("chunk %s has %d bytes instead of %d" % (identity.hex(), len(data), length))
        return data

    # 3.9: directory trees

    def entries(self, tree):
        """All entries of a tree, each after the directory it is in: path (of the root: empty) and Entry."""
        with reading("node " + tree["root"]):
            level, root = self.directory_node(bytes.fromhex(tree["root"]), root=True)
            if level or len(root) != 1 or root[0].kind != DIRECTORY:
                raise ValueError("a tree's root is one directory")
        yield b"", root[0]
        below = [(b"", self.directory(root[0].below))]
        while below:
            path, entries = below[-1]
            entry = next(entries, None)
            if entry is None:
                below.pop()
                continue
            if len(below) > DEPTH_MAX:
                raise Damaged("%r is deeper than is allowed" % path)
            inner = path + b"/" + entry.name if path else entry.name
            yield inner, entry
            if entry.kind == DIRECTORY:
                below.append((inner, self.directory(entry.below)))

    def directory(self, place):
        """The entries of a directory, in order: each name is greater than the one before it, across all nodes."""
        last = b""
        for entry in self.directory_below(place, None, None):
            if entry.name <= last:
                raise Damaged("the name %r comes behind %r in a directory" % (entry.name, last))
            last = entry.name
            yield entry

    def directory_below(self, place, level, first):
        if place is None:
            return
        what = "a directory in its entry" if len(place) != 32 else "node " + place.hex()
        with reading(what):
            found, items = self.directory_node(place)
            key = items[0].name if found == 0 else items[0][0]
            if len(place) != 32 and found or level is not None and (found, key) != (level, first):
                raise ValueError("it is not the one that belongs there")
        for item in items:
            if found:
                yield from self.directory_below(item[1], found - 1, item[0])
            else:
                yield item

    def directory_node(self, place, root=False):
        """Level and items of a node: entries, or first names and identities of nodes. One in an entry is longer than 32."""
        body = Taker(self.blob(METADATA, place) if len(place) == 32 else place)
        level, count = body.node(b"D")
        items = []
        for _ in range(count):
            name = body.take(body.number(1))
            if not root or level:
                check_name(name)
            items.append((name, body.take(32)) if level else Entry(name, body))
        body.end()
        return level, items

    def data(self, entry):
        """What is no hole of a file, in order: offset and bytes."""
        reached = 0
        for offset, identity, within, length in self.extents(entry.extents, None, None):
            if not length or offset < reached or offset + length > entry.size:
                raise Damaged("a file's extents overlap, or lie behind its end: %d bytes at %d" % (length, offset))
            reached = offset + length
            if self.last_chunk[0] != identity:  # small files lie one behind the other
                self.last_chunk = (identity, self.blob(DATA, identity))
            found = self.last_chunk[1][within:within + length]
            if len(found) != length:
                raise Damaged("chunk %s is shorter than a file that lies in it" % identity.hex())
            yield offset, found

    def extents(self, place, level, first):
        if isinstance(place, list):
            yield from place
            return
        with reading("node " + place.hex()):
            body = Taker(self.blob(METADATA, place))
            found, count = body.node(b"X")
            items = [(body.number(8), body.take(32)) if found else body.extent() for _ in range(count)]
            body.end()
            if level is not None and (found, items[0][0]) != (level, first):
                raise ValueError("it is not the one that belongs there")
        for item in items:
            if found:
                yield from self.extents(item[1], found - 1, item[0])
            else:
                yield item

    def configuration(self, reference):
        """The bytes of a guest's or firewall's configuration; None where there is none."""
        if reference is None:
            return None
        return self.chunk(reference["length"], bytes.fromhex(reference["chunk"])) if reference["chunk"] else b""


class Taker:
    """Takes a node apart (3.9)."""

    def __init__(self, data):
        self.left = memoryview(data)

    def take(self, length):
        if length > len(self.left):
            raise ValueError("it is cut short")
        taken, self.left = bytes(self.left[:length]), self.left[length:]
        return taken

    def number(self, length, signed=False):
        return int.from_bytes(self.take(length), "little", signed=signed)

    def node(self, kind):
        """Level and number of items."""
        if len(self.left) > NODE_MAX:
            raise ValueError("it is larger than is allowed")
        head, count = self.take(4), self.number(4)
        if head[:2] != kind + b"\1" or head[3] or head[2] >= LEVELS_MAX or not 0 < count <= len(self.left):
            raise ValueError("it is no node of type %s" % kind.decode())
        return head[2], count

    def extent(self):
        extent = self.number(8), self.take(32), self.number(4), self.number(4)
        if extent[2] + extent[3] > CHUNK_MAX:
            raise ValueError("an extent fits in no chunk")
        return extent

    def end(self):
        if self.left:
            raise ValueError("it goes on behind its last item")


class Entry:
    """What a directory has under a name (3.9)."""

    def __init__(self, name, body):
        self.name, self.kind = name, whole(body.number(1), FILE, BLOCK)
        self.mode, self.uid, self.gid = whole(body.number(2), 0, 0o7777), body.number(4), body.number(4)
        self.seconds, self.nanos = body.number(8, signed=True), whole(body.number(4), 0, 999_999_999)
        self.flags = body.number(4)
        self.xattrs = [(body.take(body.number(1)), body.take(whole(body.number(4), 0, XATTR_VALUE_MAX)))
                       for _ in range(whole(body.number(2), 0, XATTRS_MAX))]
        names = [name for name, _ in self.xattrs]
        if any(not name or b"\0" in name for name in names) or any(a >= b for a, b in zip(names, names[1:])):
            raise ValueError("the extended attributes of %r are not in order" % name)
        whole(sum(len(name) + len(value) for name, value in self.xattrs), 0, XATTRS_TOTAL_MAX)
        if self.kind == FILE:
            self.size, self.links, count = whole(body.number(8), 0, DISK_MAX), body.number(4), body.number(1)
            self.extents = body.take(32) if count == 255 else [
                body.extent() for _ in range(whole(count, 0, EXTENTS_INLINE))]
        elif self.kind == DIRECTORY:
            where = whole(body.number(1), 0, 2)
            self.below = None
            if where == 1:
                self.below = body.take(whole(body.number(4), 33, INLINE_MAX))
            elif where == 2:
                self.below = body.take(32)
        elif self.kind == SYMLINK:
            self.target = body.take(whole(body.number(4), 1, TARGET_MAX))
            if b"\0" in self.target:
                raise ValueError("%r is no symbolic link" % name)
        elif self.kind == HARD_LINK:
            self.target = body.take(whole(body.number(4), 1, PATH_MAX))
            for part in self.target.split(b"/"):
                check_name(part)
        elif self.kind in (CHARACTER, BLOCK):
            self.device = body.number(4), body.number(4)


def check_name(name):
    if not 0 < len(name) < 256 or b"/" in name or b"\0" in name or name in (b".", b".."):
        raise ValueError("%r is no name" % name)


def chunk_size(value):
    if whole(value, 65536, CHUNK_MAX) & (value - 1):
        raise ValueError("the chunk size %d is no power of two" % value)


def decompress(data, length, what):
    try:
        if zstandard.frame_content_size(data) not in (-1, length):
            raise Damaged("%s: its zstd frame has another length than its table says" % what)
        return zstandard.ZstdDecompressor().decompress(data, max_output_size=length)
    except zstandard.ZstdError as error:
        raise Damaged("%s does not decompress: %s" % (what, error)) from None


def warn(text):
    print("warning: " + text, file=sys.stderr)


# ---------------------------------------------------------------------------------------------------------------
# Commands

def list_archives(repository, _):
    for name, snapshot in repository.archives():
        disks = ", ".join("%s (%d bytes)" % (disk["device"], disk["size"]) for disk in snapshot["disks"])
        if snapshot.get("tree"):
            disks = "%(entries)d entries (%(size)d bytes)" % snapshot["tree"]
        print("%s  %s  %s" % (name, time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(snapshot["time"])), disks))


def show(repository, arguments):
    snapshot = repository.archive(arguments.archive)
    print(json.dumps(snapshot, indent=1))
    for what in ("guest_config", "firewall_config"):
        content = repository.configuration(snapshot[what])
        if content is not None:
            print("--- %s ---" % what)
            print(content.decode(errors="replace"))


def restore(repository, arguments):
    snapshot = repository.archive(arguments.archive)
    found = [disk for disk in snapshot["disks"] if disk["device"] == arguments.device]
    if not found:
        raise Damaged("%s has no disk %s, but %s" % (
            arguments.archive, arguments.device, ", ".join(disk["device"] for disk in snapshot["disks"])))
    written = write_new(arguments.target, lambda file: write_disk(repository, found[0], file))
    print("%s: %d bytes, %d of them not zero" % (arguments.target, found[0]["size"], written))


def write_new(target, write):
    """Makes a file that appears under its name once it is whole."""
    if os.path.exists(target):
        raise Damaged("%s exists already; nothing is overwritten" % target)
    partial = target + ".partial"
    with open(partial, "xb") as file:
        try:
            result = write(file)
            file.flush()
            os.fsync(file.fileno())
            os.rename(partial, target)
            return result
        except BaseException:
            os.unlink(partial)  # half of it must not be taken for the whole
            raise


def restore_tree(repository, arguments):
    snapshot = repository.archive(arguments.archive)
    if not snapshot.get("tree"):
        raise Damaged("%s has no directory tree; `restore` writes its disks" % arguments.archive)
    if arguments.target == "-":
        written = write_tar(repository, snapshot["tree"], sys.stdout.buffer)
    else:
        written = write_new(arguments.target, lambda file: write_tar(repository, snapshot["tree"], file))
    print("%s: %d entries" % (arguments.target, written), file=sys.stderr)


TAR_TYPES = {FILE: tarfile.REGTYPE, DIRECTORY: tarfile.DIRTYPE, SYMLINK: tarfile.SYMTYPE, HARD_LINK: tarfile.LNKTYPE,
             FIFO: tarfile.FIFOTYPE, CHARACTER: tarfile.CHRTYPE, BLOCK: tarfile.BLKTYPE}


def write_tar(repository, tree, out):
    """Everything but sockets and inode flags, which a tar file cannot hold; holes as GNU tar's sparse format 1.0."""
    count = 0
    for path, entry in repository.entries(tree):
        if entry.kind not in TAR_TYPES:
            warn("%r is a socket, which is made again by whoever uses it" % path)
            continue
        info = tarfile.TarInfo(os.fsdecode(path) or ".")
        info.type, info.mode, info.uid, info.gid = TAR_TYPES[entry.kind], entry.mode, entry.uid, entry.gid
        headers = {"SCHILY.xattr." + os.fsdecode(name): os.fsdecode(value) for name, value in entry.xattrs}
        headers["mtime"] = "%d.%09d" % (entry.seconds, entry.nanos)
        if entry.seconds < 0 and entry.nanos:  # the time is the sum, and this is how a sum below zero is written
            headers["mtime"] = "-%d.%09d" % (-entry.seconds - 1, 10**9 - entry.nanos)
        if entry.uid > 0o7777777 or entry.gid > 0o7777777:
            headers.update(uid=str(entry.uid), gid=str(entry.gid))
        if entry.kind in (SYMLINK, HARD_LINK):
            info.linkname = os.fsdecode(entry.target)
        elif entry.kind in (CHARACTER, BLOCK):
            info.devmajor, info.devminor = entry.device
        head = b""
        if entry.kind == FILE:
            runs = blocks(repository, entry)
            if runs != [[0, entry.size]] and entry.size:
                listed = runs if runs and runs[-1][1] == entry.size else runs + [[entry.size, entry.size]]
                lines = [len(listed)] + [number for start, end in listed for number in (start, end - start)]
                head = b"".join(b"%d\n" % line for line in lines)
                head += bytes(-len(head) % 512)
                headers.update({"GNU.sparse.major": "1", "GNU.sparse.minor": "0", "GNU.sparse.name": info.name,
                                "GNU.sparse.realsize": str(entry.size)})
                info.name = "GNUSparseFile.0/" + os.path.basename(info.name)
            info.size = len(head) + sum(end - start for start, end in runs)
        info.pax_headers = headers
        out.write(info.tobuf(tarfile.PAX_FORMAT, "utf-8", "surrogateescape") + head)
        if entry.kind == FILE:
            write_blocks(repository, entry, runs, out)
            out.write(bytes(-info.size % 512))
        count += 1
    out.write(bytes(1024))
    return count


def blocks(repository, entry):
    """Where a file's data is, in whole blocks of 512 bytes as GNU tar wants it: from and to, without reading it."""
    runs = []
    for offset, _, _, length in repository.extents(entry.extents, None, None):
        start, end = offset // 512 * 512, min(entry.size, -(-(offset + length) // 512) * 512)
        if runs and runs[-1][1] >= start:
            runs[-1][1] = end
        else:
            runs.append([start, end])
    return runs


def write_blocks(repository, entry, runs, out):
    left = iter(runs)
    at, end = 0, 0
    for offset, data in repository.data(entry):
        while end <= offset:
            out.write(bytes(end - at))
            at, end = next(left)
        out.write(bytes(offset - at) + data)
        at = offset + len(data)
    out.write(bytes(end - at))


def write_disk(repository, disk, file):
    """Writes what is not zero; the rest of the file is a hole."""
    written = 0
    for offset, length, identity in repository.chunks(disk):
        file.seek(offset)
        file.write(repository.chunk(length, identity))
        written += length
    file.truncate(disk["size"])
    return written


def verify(repository, arguments):
    damaged, seen, names = 0, set(), repository.names("snapshots")

    def attempt(what, action):
        nonlocal damaged
        try:
            action()
        except (Damaged, OSError) as error:
            damaged += 1
            print("%s: %s" % (what, error))

    def one_archive(name):
        snapshot = repository.archive(name[len("snapshots/"):])
        for reference in (snapshot["guest_config"], snapshot["firewall_config"]):
            attempt(name, lambda: repository.configuration(reference))
        for disk in snapshot["disks"]:
            attempt("%s, disk %s" % (name, disk["device"]), lambda: one_disk(disk))
        if snapshot.get("tree"):
            attempt("%s, tree" % name, lambda: one_tree(snapshot["tree"]))

    def one_tree(tree):
        for _, entry in repository.entries(tree):
            for _ in repository.data(entry) if entry.kind == FILE else ():
                pass
            if entry.kind == FILE:
                seen.update((e[1], 0) for e in repository.extents(entry.extents, None, None))

    def one_disk(disk):
        for _, length, identity in repository.chunks(disk):
            if (identity, length) not in seen:
                repository.chunk(length, identity)
                seen.add((identity, length))

    def one_pack(name):
        if b3(repository.read(name, PACK_MAX)).hex() != os.path.basename(name):
            raise Damaged("its content does not have the hash that is its name")

    packs = repository.names("packs") if arguments.packs else []
    for name in packs:
        attempt(name, lambda: one_pack(name))
    for name in names:
        attempt(name, lambda: one_archive(name))
    print("%d packs, %d archives and %d chunks read, %d damaged" % (len(packs), len(names), len(seen), damaged))
    return 1 if damaged else 0


def main():
    parser = argparse.ArgumentParser(description="Restore disks and files from a Snapkeep repository without Snapkeep.")
    parser.add_argument("--repository", required=True, metavar="FOLDER")
    for name in ("recovery-kit", "key-file", "passphrase-file"):
        parser.add_argument("--" + name, metavar="FILE")
    parser.add_argument("--ignore-config", action="store_true", help="go on although config is damaged or lost")
    parser.add_argument("--no-index", action="store_true", help="read the tables of the packs instead of index/")
    verbs = parser.add_subparsers(dest="verb", required=True)
    verbs.add_parser("list", help="the archives").set_defaults(run=list_archives)
    verb = verbs.add_parser("show", help="an archive's record and its guest's configuration")
    verb.add_argument("archive", help="as printed by list")
    verb.set_defaults(run=show)
    verb = verbs.add_parser("restore", help="write a disk to a new, sparse, raw file")
    for name in ("archive", "device", "target"):
        verb.add_argument(name)
    verb.set_defaults(run=restore)
    verb = verbs.add_parser("restore-tree", help="write a container's files to a new tar file, or - for standard output")
    for name in ("archive", "target"):
        verb.add_argument(name)
    verb.set_defaults(run=restore_tree)
    verb = verbs.add_parser("verify", help="read every chunk of every archive, but nothing that only speeds up backups")
    verb.add_argument("--packs", action="store_true", help="also compare each pack's hash with its name")
    verb.set_defaults(run=verify)
    arguments = parser.parse_args()

    def content(path):
        with reading(path), open(path, encoding="utf-8") as file:
            return file.read()

    try:
        repository = Repository(arguments.repository, not arguments.no_index, not arguments.ignore_config)
        repository.unlock(
            arguments.recovery_kit and content(arguments.recovery_kit),
            arguments.key_file and content(arguments.key_file),
            arguments.passphrase_file and content(arguments.passphrase_file).rstrip("\r\n").encode())
        return arguments.run(repository, arguments)
    except (MemoryError, BrokenPipeError, KeyboardInterrupt) as error:
        print("error: stopped by %s" % type(error).__name__, file=sys.stderr)
        return 1
    except (Damaged, OSError) as error:
        print("error: %s" % error, file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
