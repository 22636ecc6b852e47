"""Croissant 1.1 metadata of a released data set: a description that programs read (mlcommons.org/croissant)."""

from collections.abc import Mapping, Sequence
from typing import Any

import polars as pl

from star1 import licences

CONFORMS_TO = "http://mlcommons.org/croissant/1.1"
ROWS, TABLE = "rows", "parquet"
# The context of the specification, version 1.1.
_PLAIN = (
    "arrayShape", "citeAs", "column", "containedIn", "equivalentProperty", "extract", "field", "fileObject",
    "fileProperty", "fileSet", "format", "includes", "isArray", "isLiveDataset", "jsonPath", "key", "md5", "parentField",
    "path", "recordSet", "references", "regex", "repeated", "replace", "samplingRate", "separator", "source", "subField",
    "transform",
)  # fmt: skip
CONTEXT: Mapping[str, Any] = {
    "@language": "en",
    "@vocab": "https://schema.org/",
    "sc": "https://schema.org/",
    "cr": "http://mlcommons.org/croissant/",
    "rai": "http://mlcommons.org/croissant/RAI/",
    "dct": "http://purl.org/dc/terms/",
    "conformsTo": "dct:conformsTo",
    "data": {"@id": "cr:data", "@type": "@json"},
    "dataType": {"@id": "cr:dataType", "@type": "@vocab"},
    "examples": {"@id": "cr:examples", "@type": "@json"},
    **{name: f"cr:{name}" for name in _PLAIN},
}
# What mlcroissant knows; the registered application/vnd.apache.parquet is not among it.
FORMATS = {".parquet": "application/x-parquet", ".json": "application/json"}
TYPES: Mapping[type[pl.DataType], str] = {
    pl.String: "sc:Text",
    pl.Int64: "sc:Integer",
    pl.Boolean: "sc:Boolean",
    pl.List: "sc:Text",
}


def metadata(
    name: str,
    description: str,
    version: str,
    terms: Sequence[str],
    files: Mapping[str, Mapping[str, Any]],
    columns: Mapping[str, tuple[pl.DataType, str]],
    cite: str,
    url: str,
) -> dict[str, Any]:
    """The document.

    Args:
        name: of the data set.
        description: in a sentence or two.
        version: of the data set.
        terms: licences of its parts, by the names of params.yaml.
        files: sha256 and bytes of its data files, by path; exactly one of them is Parquet.
        columns: type and meaning of each column of the Parquet file.
        cite: what is to be cited, BibTeX.
        url: where the project is found.
    """
    links = [found.url if (found := licences.known(one)) else one for one in terms]
    return {
        "@context": CONTEXT,
        "@type": "sc:Dataset",
        "conformsTo": CONFORMS_TO,
        "name": name,
        "description": description,
        "version": version,
        "license": list(dict.fromkeys(links)),
        "url": url,
        "citeAs": cite,
        "inLanguage": "en",
        "isLiveDataset": False,
        "distribution": [_file(path, facts) for path, facts in files.items()],
        "recordSet": [
            {
                "@type": "cr:RecordSet",
                "@id": ROWS,
                "name": ROWS,
                "description": "one row for each prompt",
                "key": {"@id": f"{ROWS}/id"},
                "field": [_field(column, kind, meaning) for column, (kind, meaning) in columns.items()],
            }
        ],
    }


def _file(path: str, facts: Mapping[str, Any]) -> dict[str, Any]:
    suffix = path[path.rindex(".") :]
    return {
        "@type": "cr:FileObject",
        "@id": TABLE if suffix == ".parquet" else "published-layout",
        "name": path.rsplit("/", 1)[-1],
        "contentUrl": path,
        "contentSize": f"{facts['bytes']} B",
        "encodingFormat": FORMATS[suffix],
        "sha256": facts["sha256"],
    }


def _field(column: str, kind: pl.DataType, meaning: str) -> dict[str, Any]:
    shape = {"isArray": True, "arrayShape": "-1"} if isinstance(kind, pl.List) else {}
    return {
        "@type": "cr:Field",
        "@id": f"{ROWS}/{column}",
        "name": column,
        "description": meaning,
        "dataType": TYPES[type(kind)],
        **shape,
        "source": {"fileObject": {"@id": TABLE}, "extract": {"column": column}},
    }
