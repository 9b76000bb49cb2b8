# What is there before the disaster: a repository with a virtual machine and a container, and its
# recovery kit. The folder `away` is what is lost, but for what the drill compares with.
set -euo pipefail
mkdir away
snapkeep -q -r repository init --new-key-file away/key --write-recovery-kit kit > away/log
export SNAPKEEP_REPOSITORY=repository SNAPKEEP_KEY_FILE=away/key
truncate -s 8M away/disk.raw
head -c 300000 /dev/urandom | dd of=away/disk.raw bs=64K seek=16 conv=notrunc status=none
qemu-system-x86_64 -nodefaults -display none -accel tcg -m 32 -qmp unix:away/qmp,server=on,wait=off \
    -blockdev driver=raw,node-name=d0,file.driver=file,file.filename=away/disk.raw \
    -device virtio-blk-pci,id=disk0,drive=d0 2> /dev/null &
trap 'kill $! 2> /dev/null || :; wait' EXIT
for _ in $(seq 600); do [ -S away/qmp ] && break; sleep 0.1; done
echo 'name: web' > away/web.conf
snapkeep -q backup vm --guest web --qmp away/qmp --guest-config away/web.conf >> away/log
mkdir -p away/files/etc
echo hello > away/files/etc/motd
ln -s etc/motd away/files/link
ln away/files/etc/motd away/files/etc/again
head -c 200000 /dev/urandom > away/files/large
snapkeep -q --state away/state backup container --guest box --directory away/files >> away/log 2>&1
echo changed > away/files/etc/issue
snapkeep -q --state away/state backup container --guest box --directory away/files >> away/log 2>&1
mkdir empty empty/home
if [ -n "${BUCKET-}" ]; then
    snapkeep -q -r "$BUCKET" init --new-key-file away/bucket-key --write-recovery-kit bucket-kit >> away/log
    snapkeep -q copy --all --to "$BUCKET" --to-key-file away/bucket-key >> away/log
    mkdir bucket bucket/home
    mv bucket-kit bucket/kit
fi
mv repository kit empty
