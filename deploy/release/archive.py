"""Archives with the same bytes for the same content: sorted, owned by root, with the time of the commit."""

import gzip
import io
import tarfile


def write(project, target, binary, texts, out):
    """Writes sidentity-VERSION-TARGET.tar.gz, which contains one directory of that name."""
    name = f"sidentity-{project.version}-{target}"
    files = {f"{name}/{path}": (content, 0o644) for path, content in texts.items()}
    files[f"{name}/sidentity"] = (binary.read_bytes(), 0o755)
    (out / f"{name}.tar.gz").write_bytes(compress(tar(files, project.epoch)))


def tar(files, epoch, links=None):
    """Returns a tar of {path: (content, mode)} and {path: target of a symbolic link}, with their directories."""
    links = links or {}
    spool = io.BytesIO()
    with tarfile.open(fileobj=spool, mode="w", format=tarfile.USTAR_FORMAT) as tree:
        for path in sorted({*files, *links, *folders([*files, *links])}):
            member = tarfile.TarInfo(path)
            member.mtime = epoch
            if path in files:
                content, member.mode = files[path]
                member.size = len(content)
                tree.addfile(member, io.BytesIO(content))
            elif path in links:
                member.type, member.mode, member.linkname = tarfile.SYMTYPE, 0o777, links[path]
                tree.addfile(member)
            else:
                member.type, member.mode = tarfile.DIRTYPE, 0o755
                tree.addfile(member)
    return spool.getvalue()


def folders(paths):
    for path in paths:
        while "/" in path:
            path = path.rpartition("/")[0]
            yield path


def compress(content):
    return gzip.compress(content, 9, mtime=0)
