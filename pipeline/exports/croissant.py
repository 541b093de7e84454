"""``croissant.json``: an export in the vocabulary of MLCommons Croissant 1.0, with its extension for responsible AI.

Catalogues and loaders of data sets read it. It follows from ``export.json`` alone.
"""

import posixpath
from typing import Any

from cptsel.pipeline.exports.base import ExportFormat
from cptsel.pipeline.exports.media import Extraction, column, parts
from cptsel.pipeline.summary import counted
from cptsel.schemas.headers import ExportDataset, ExportHeader

NAME = "croissant.json"

#: Of the specification, word by word: readers compare it.
_CONTEXT: dict[str, Any] = {
    "@language": "en",
    "@vocab": "https://schema.org/",
    "citeAs": "cr:citeAs",
    "column": "cr:column",
    "conformsTo": "dct:conformsTo",
    "cr": "http://mlcommons.org/croissant/",
    "data": {"@id": "cr:data", "@type": "@json"},
    "dataType": {"@id": "cr:dataType", "@type": "@vocab"},
    "dct": "http://purl.org/dc/terms/",
    "equivalentProperty": "cr:equivalentProperty",
    "examples": {"@id": "cr:examples", "@type": "@json"},
    "extract": "cr:extract",
    "field": "cr:field",
    "fileObject": "cr:fileObject",
    "fileProperty": "cr:fileProperty",
    "fileSet": "cr:fileSet",
    "format": "cr:format",
    "includes": "cr:includes",
    "isLiveDataset": "cr:isLiveDataset",
    "jsonPath": "cr:jsonPath",
    "key": "cr:key",
    "md5": "cr:md5",
    "parentField": "cr:parentField",
    "path": "cr:path",
    "rai": "http://mlcommons.org/croissant/RAI/",
    "recordSet": "cr:recordSet",
    "references": "cr:references",
    "regex": "cr:regex",
    "repeated": "cr:repeated",
    "replace": "cr:replace",
    "samplingRate": "cr:samplingRate",
    "sc": "https://schema.org/",
    "separator": "cr:separator",
    "source": "cr:source",
    "subField": "cr:subField",
    "transform": "cr:transform",
}

FIELDS = {  # of a play: data type, and what it is
    "text": ("sc:Text", "The text of the window, as in the corpus."),
    "id": ("sc:Text", "The document's own name in the corpus; empty if it has none."),
    "sample_id": ("sc:Text", "The name of the window."),
    "group": ("sc:Text", "The group that it belongs to in the corpus."),
    "weight": ("sc:Float", "How many tokens of the corpus each token of the window stands for."),
    "loss_weight": ("sc:Float", "The factor that the trainer multiplies its token losses by."),
    "repeat": ("sc:Integer", "Which play of this window it is, from 1."),
    "shard": ("sc:Text", "The corpus file that it comes from."),
    "row": ("sc:Integer", "Its row in that file, from 0."),
    "input_ids": ("sc:Integer", "Its token ids, as when it was embedded."),
}
_OTHERS = {".json": "application/json", ".yaml": "application/yaml", ".txt": "text/plain", ".gz": "application/gzip"}


def croissant(format: ExportFormat, header: ExportHeader) -> dict[str, Any]:
    """The metadata that belongs to ``export.json`` of an export whose format has ``media``."""
    media, about = format.media, header["dataset"]
    assert media is not None
    found: dict[str, Any] = {
        "@context": _CONTEXT,
        "@type": "sc:Dataset",
        "conformsTo": ["http://mlcommons.org/croissant/1.0", "http://mlcommons.org/croissant/RAI/1.0"],
        "name": name_of(header),
        "description": described(header),
        **({"license": about["license"]} if about["license"] is not None else {}),
        "keywords": ["replay", "continual pre-training", "language modelling"],
        "version": "1.0.0",  # of what has the manifest's name, and never changes
        "identifier": header["parent"],
        "isLiveDataset": False,
        **_responsible(header, about),
    }
    files = [_file(format, name, entry) for name, entry in sorted(header["files"].items())]
    sets, records = [], []
    for name, patterns in parts(format, header["files"]).items():
        if not media.members:
            sets.append(_file_set(name, {"includes": patterns, "encodingFormat": list(media.types)}))
            places = {field: media.places.get(field, column(field)) for field in about["fields"]}
            records.append(_records(name, name, places))
            continue
        folders = {posixpath.dirname(pattern) for pattern in patterns}
        inside = [{"@id": file["@id"]} for file in files if posixpath.dirname(file["@id"]) in folders]
        inside = [file for file in inside if file["@id"].endswith(format.suffix)]
        for kind in media.members:
            set_name = f"{name}-{kind.name}"
            facts = {"containedIn": inside, "includes": f"*{kind.suffix}", "encodingFormat": kind.type}
            sets.append(_file_set(set_name, facts))
            places = {field: kind.places[field] for field in about["fields"] if field in kind.places}
            records.append(_records(set_name, set_name, places))
    return found | {"distribution": [*files, *sets], "recordSet": records}


def name_of(header: ExportHeader) -> str:
    """What the data set is called: by the manifest that it is an export of."""
    return f"replay-{header['parent'][:12]}"


def described(header: ExportHeader) -> str:
    """What the data set is, in sentences."""
    about, totals = header["dataset"], header["totals"]
    population, content = about["population"], "text" if _has_texts(about) else "token ids"
    return (
        f"Replay data for continual pre-training of a language model: {counted(totals['lines'], 'play')} "
        f"({counted(totals['tokens'], 'predicted token')}) of windows of {content}. cptsel chose them by the method "
        f"{about['method']} from {counted(population['samples'], 'window')} "
        f"({counted(population['tokens'], 'predicted token')}) of a pre-training corpus of "
        f"{counted(population['shards'], 'file')}."
    )


def _has_texts(about: ExportDataset) -> bool:
    return "text" in about["fields"]


def limits(header: ExportHeader) -> list[str]:
    """What the data set is not, in sentences."""
    left_out = header["excluded"]
    sentences = [
        "Samples were chosen to keep a model from forgetting, not to represent the corpus: shares of groups, lengths "
        "and losses may differ from it.",
        "Windows may begin and end inside a document.",
    ]
    if header["realisation"] == "repeat":
        sentences.append("A window may be played several times, so rows are repeated.")
    if left_out["entries_sha256"] is not None:
        sentences.append(f"{left_out['samples']:,} chosen samples were left out, by a list.")
    return sentences


SENSITIVE = "Windows are unchanged from the corpus. They were not searched for personal data, and nothing was redacted."


def collected(about: ExportDataset) -> str:
    """How the samples came here, in sentences."""
    model = f"the model {about['model']}" if about["model"] else "a language model"
    by = f" within a budget of {about['budget']}" if about["budget"] else ""
    return (
        f"Documents of an existing corpus were cut into windows of at most {about['max_tokens']:,} tokens, embedded "
        f"with {model}, and chosen by the method {about['method']}{by}."
    )


def _responsible(header: ExportHeader, about: ExportDataset) -> dict[str, Any]:
    """The properties of Croissant's vocabulary for responsible AI that follow from how an export is made."""
    return {
        "rai:dataCollection": collected(about),
        "rai:dataCollectionType": ["Secondary Data analysis"],
        "rai:dataPreprocessingProtocol": [
            f"Each window is a slice of its document by {'code points' if _has_texts(about) else 'tokens'}, and "
            "was checked against the hash of what was embedded. Documents are not normalised, filtered or deduplicated."
        ],
        "rai:dataUseCases": ["Training: replay alongside a new corpus, to keep a language model from forgetting."],
        "rai:dataLimitations": limits(header),
        "rai:dataBiases": ["Those of the corpus, and of the model whose gradients windows were chosen by."],
        "rai:personalSensitiveInformation": [SENSITIVE],
    }


def _file(format: ExportFormat, name: str, entry: Any) -> dict[str, Any]:
    assert format.media is not None
    types = list(format.media.types)
    if not name.endswith(format.suffix):
        types = [_OTHERS.get(posixpath.splitext(name)[1], "application/octet-stream")]
    return {
        "@type": "cr:FileObject",
        "@id": name,
        "name": name,
        "contentUrl": name,
        "contentSize": f"{entry['bytes']} B",
        "encodingFormat": types if len(types) > 1 else types[0],
        "sha256": entry["sha256"],
    }


def _file_set(name: str, facts: dict[str, Any]) -> dict[str, Any]:
    id = f"{name}-files"
    return {"@type": "cr:FileSet", "@id": id, "name": id, **facts}


def _records(name: str, files: str, places: dict[str, Extraction]) -> dict[str, Any]:
    fields = [
        {
            "@type": "cr:Field",
            "@id": f"{name}/{field}",
            "name": field,
            "description": FIELDS[field][1],
            "dataType": FIELDS[field][0],
            **({"repeated": True} if field == "input_ids" or "transform" in place else {}),
            "source": {"fileSet": {"@id": f"{files}-files"}, **place},
        }
        for field, place in places.items()
    ]
    return {"@type": "cr:RecordSet", "@id": name, "name": name, "field": fields}
