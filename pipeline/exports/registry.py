"""The export formats."""

import re

from cptsel.pipeline.exports.base import ExportFormat
from cptsel.pipeline.exports.hf import HuggingFace
from cptsel.pipeline.exports.hf_indices import HfIndices
from cptsel.pipeline.exports.jsonl import Jsonl
from cptsel.pipeline.exports.llamafactory import LlamaFactory
from cptsel.pipeline.exports.llamafactory_v1 import LlamaFactoryV1
from cptsel.pipeline.exports.mds import Mds
from cptsel.pipeline.exports.megatron import Megatron
from cptsel.pipeline.exports.megatron_zero_copy import MegatronZeroCopy
from cptsel.pipeline.exports.ms_swift import MsSwift
from cptsel.pipeline.exports.nanotron import Nanotron
from cptsel.pipeline.exports.olmo import Olmo
from cptsel.pipeline.exports.parquet import Parquet
from cptsel.pipeline.exports.uids import Uids
from cptsel.pipeline.exports.webdataset import WebDataset

_FORMATS = (
    Jsonl(),
    Parquet(),
    HuggingFace(),
    HfIndices(),
    Megatron(),
    MegatronZeroCopy(),
    Olmo(),
    Mds(),
    WebDataset(),
    MsSwift(),
    LlamaFactory(),
    LlamaFactoryV1(),
    Nanotron(),
    Uids(),
)
EXPORTS: dict[str, ExportFormat] = {format.name: format for format in _FORMATS}


def data_pattern() -> str:
    """Regular expression of the files that exports write below their directory, but for those of all commands."""
    ends = "|".join(re.escape(end) for format in EXPORTS.values() for end in format.ends())
    code = "|".join(re.escape(name) for format in EXPORTS.values() for name in format.code)
    return rf"TRAINING\.md|README\.md|croissant\.json|code/({code})|data(/.+)?({ends})"
