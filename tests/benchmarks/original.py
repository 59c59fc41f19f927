"""What people run today: a generator that writes nginx one location for each tag and each digest.

    python original.py IMAGES > registry.conf

Written for this suite in the shape that is usual: `location =` for each manifest, by tag and by digest,
and for the blobs of a repository one regular expression whose `try_files` asks one tag after another.
"""

import hashlib
import json
import os
import sys
from collections.abc import Iterator


def generate(root: str) -> Iterator[str]:
    """The pieces of a file for a ``server {}`` block."""
    yield 'location = /v2/ { return 200 "{}"; }\n'
    for directory, names, _ in sorted(os.walk(root)):
        tags = sorted(name for name in names if os.path.exists(f"{directory}/{name}/manifest.json"))
        if tags:
            yield from repository(root, os.path.relpath(directory, root), tags)


def repository(root: str, name: str, tags: list[str]) -> Iterator[str]:
    listed = json.dumps({"name": name, "tags": tags})
    yield (
        f"location = /v2/{name}/tags/list {{ types {{ }} default_type application/json; "
        f"return 200 '{listed}'; }}\n"
    )
    digests = set()
    for tag in tags:
        file = f"{root}/{name}/{tag}/manifest.json"
        with open(file, "rb") as stream:
            raw = stream.read()
        media_type = json.loads(raw).get("mediaType", "application/vnd.oci.image.manifest.v1+json")
        digest = f"sha256:{hashlib.sha256(raw).hexdigest()}"
        references = [tag] if digest in digests else [tag, digest]
        digests.add(digest)
        for reference in references:
            yield (
                f'location = "/v2/{name}/manifests/{reference}" {{ alias {file}; types {{ }} '
                f"default_type {media_type}; add_header Docker-Content-Digest {digest}; }}\n"
            )
    candidates = " ".join(f"/{name}/{tag}/$1" for tag in tags)
    yield (
        f'location ~ "^/v2/{name}/blobs/sha256:([0-9a-f]{{64}})$" {{ root {root}; '
        f"default_type application/octet-stream; try_files {candidates} =404; }}\n"
    )


if __name__ == "__main__":
    sys.stdout.writelines(generate(sys.argv[1]))
