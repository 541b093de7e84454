"""A stand-in for HDFS: the part of its REST interface that Beam calls, by Hadoop's page "WebHDFS REST API".

    python webhdfs.py PORT

Files are held in memory. As in HDFS, folders are there while something was put into them, a rename onto a file is
refused, and data are sent to another address than the request for them.
"""

import json
import posixpath
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, unquote, urlsplit

PREFIX = "/webhdfs/v1"

files: dict[str, tuple[bytes, int]] = {}
folders = {"/"}
lock = threading.Lock()


def status(path: str, name: str) -> dict[str, object] | None:
    """FileStatus of a file or folder."""
    if path in files:
        data, changed = files[path]
        return {"pathSuffix": name, "type": "FILE", "length": len(data), "modificationTime": changed}
    return {"pathSuffix": name, "type": "DIRECTORY", "length": 0, "modificationTime": 0} if path in folders else None


def under(path: str) -> str:
    return path.rstrip("/") + "/"


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do(self) -> None:
        address = urlsplit(self.path)
        query = {name: values[0] for name, values in parse_qs(address.query).items()}
        path = unquote(address.path.removeprefix(PREFIX)) or "/"
        body = self.body()
        if query.get("op") in ("CREATE", "OPEN") and "datanode" not in query:
            self.answer(307, b"", {"Location": f"http://{self.headers['Host']}{self.path}&datanode=1"})
            return
        with lock:
            getattr(self, f"on_{query['op'].lower()}")(path, query, body)

    do_GET = do_PUT = do_POST = do_DELETE = do

    def body(self) -> bytes:
        if self.headers.get("Transfer-Encoding") != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))
        data = b""
        while size := int(self.rfile.readline(), 16):
            data += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return data

    def answer(self, code: int, data: bytes, headers: dict[str, str] | None = None) -> None:
        self.send_response(code)
        for name, value in ({"Content-Length": str(len(data))} | (headers or {})).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(data)

    def tell(self, value: object) -> None:
        self.answer(200, json.dumps(value).encode(), {"Content-Type": "application/json"})

    def missing(self, path: str) -> None:
        found = {"exception": "FileNotFoundException", "message": f"File does not exist: {path}"}
        self.answer(404, json.dumps({"RemoteException": found}).encode(), {"Content-Type": "application/json"})

    def on_getfilestatus(self, path: str, query: dict[str, str], body: bytes) -> None:
        found = status(path, "")
        self.tell({"FileStatus": found}) if found else self.missing(path)

    def on_liststatus(self, path: str, query: dict[str, str], body: bytes) -> None:
        if path in files:
            self.tell({"FileStatuses": {"FileStatus": [status(path, "")]}})
        elif path not in folders:
            self.missing(path)
        else:
            inside = {name for name in (*files, *folders) if name != "/" and posixpath.dirname(name) == path}
            found = [status(name, posixpath.basename(name)) for name in sorted(inside)]
            self.tell({"FileStatuses": {"FileStatus": found}})

    def on_create(self, path: str, query: dict[str, str], body: bytes) -> None:
        if path in files and query.get("overwrite") != "true":
            found = {"exception": "FileAlreadyExistsException", "message": f"{path} already exists"}
            self.answer(403, json.dumps({"RemoteException": found}).encode(), {"Content-Type": "application/json"})
            return
        files[path] = body, int(time.time() * 1000)
        folder = posixpath.dirname(path)
        while folder not in folders:
            folders.add(folder)
            folder = posixpath.dirname(folder)
        self.answer(201, b"")

    def on_open(self, path: str, query: dict[str, str], body: bytes) -> None:
        if path not in files:
            self.missing(path)
            return
        start = int(query.get("offset", 0))
        end = start + int(query["length"]) if "length" in query else None
        self.answer(200, files[path][0][start:end])

    def on_rename(self, path: str, query: dict[str, str], body: bytes) -> None:
        target = query["destination"]
        done = path in files and target not in files and posixpath.dirname(target) in folders
        if done:
            files[target] = files.pop(path)
        self.tell({"boolean": done})

    def on_delete(self, path: str, query: dict[str, str], body: bytes) -> None:
        gone = [name for name in files if name == path or name.startswith(under(path))]
        for name in gone:
            del files[name]
        folders.difference_update({name for name in folders if name == path or name.startswith(under(path))} - {"/"})
        self.tell({"boolean": bool(gone)})

    def log_message(self, *arguments: object) -> None:
        pass


if __name__ == "__main__":
    ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
