#!/bin/sh
# Makes the golden files beside it with coreutils and gzip alone: the document's
# digests, the annotation and the disk image as other tools would make them.
set -eu
cd "$(dirname "$0")"
for doc in *.toml; do
	name=${doc%.toml}
	for bits in 256 384 512; do
		printf 'sha%s %s\n' "$bits" "$("sha${bits}sum" "$doc" | cut -d' ' -f1)"
	done >"$name.digests"
	gzip -n -9 -c "$doc" >"$name.gz"
	base64 -w0 "$name.gz" >"$name.annotation"
	size=$(wc -c <"$name.gz")
	{
		printf initdata
		for shift in 0 8 16 24 32 40 48 56; do
			printf "\\$(printf '%03o' $((size >> shift & 255)))"
		done
		cat "$name.gz"
	} >"$name.img"
	truncate -s %512 "$name.img"
	rm "$name.gz"
done
