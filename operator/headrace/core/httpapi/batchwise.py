"""Whole batches: files, batches and models, as OpenAI has them."""

from __future__ import annotations

from headrace.api.answers import BatchObject, BatchPage, FileDeleted, FileObject, FilePage, ModelList
from headrace.api.gateway import BatchRequest, UploadForm
from headrace.core.httpapi.operation import FORM, JSON_LINES, Answer, Body, Operation, Parameter, Tag
from headrace.core.httpapi.parameters import AFTER, BATCH, FILE, KEY, ORDER, TEXT, TRACEPARENT, limit

MOST_FILES = 10_000
MOST_BATCHES, BATCHES_LISTED = 100, 20

LIST_MODELS = Operation(
    "listModels", "GET", "/v1/models", Tag.MODELS, "What is served.", (Answer(200, "The models.", ModelList),)
)
LIST_FILES = Operation(
    "listFiles",
    "GET",
    "/v1/files",
    Tag.FILES,
    "Uploads, and what batches have left.",
    (Answer(200, "One page of them.", FilePage),),
    (400,),
    (
        Parameter("purpose", "query", "`batch`: uploads alone; `batch_output`: what batches have left.", TEXT),
        limit(MOST_FILES, MOST_FILES),
        AFTER,
        ORDER,
    ),
)
CREATE_FILE = Operation(
    "createFile",
    "POST",
    "/v1/files",
    Tag.FILES,
    "Keeps a file. Once it is answered, the file is on the disk.",
    (Answer(200, "The file is kept.", FileObject),),
    (400, 408, 413, 415, 507),
    body=Body(UploadForm, FORM),
)
RETRIEVE_FILE = Operation(
    "retrieveFile",
    "GET",
    "/v1/files/{file_id}",
    Tag.FILES,
    "A file, without its content.",
    (Answer(200, "The file.", FileObject),),
    (404,),
    (FILE,),
)
DELETE_FILE = Operation(
    "deleteFile",
    "DELETE",
    "/v1/files/{file_id}",
    Tag.FILES,
    "Deletes an upload that no unfinished batch reads.",
    (Answer(200, "It is gone.", FileDeleted),),
    (404, 409),
    (FILE,),
)
DOWNLOAD_FILE = Operation(
    "downloadFile",
    "GET",
    "/v1/files/{file_id}/content",
    Tag.FILES,
    "The content of a file, as a stream.",
    (Answer(200, "The content.", media_type=JSON_LINES),),
    (404,),
    (FILE,),
)
LIST_BATCHES = Operation(
    "listBatches",
    "GET",
    "/v1/batches",
    Tag.BATCHES,
    "Batches, by whichever door they have come.",
    (Answer(200, "One page of them.", BatchPage),),
    (400,),
    (limit(MOST_BATCHES, BATCHES_LISTED), AFTER, ORDER),
)
CREATE_BATCH = Operation(
    "createBatch",
    "POST",
    "/v1/batches",
    Tag.BATCHES,
    "Makes an InferenceBatch of an uploaded file.",
    (Answer(200, "The batch is there.", BatchObject),),
    (400, 408, 409, 413, 415, 507),
    (KEY, TRACEPARENT),
    Body(BatchRequest),
)
RETRIEVE_BATCH = Operation(
    "retrieveBatch",
    "GET",
    "/v1/batches/{batch_id}",
    Tag.BATCHES,
    "A batch as it stands.",
    (Answer(200, "The batch.", BatchObject),),
    (404,),
    (BATCH,),
)
CANCEL_BATCH = Operation(
    "cancelBatch",
    "POST",
    "/v1/batches/{batch_id}/cancel",
    Tag.BATCHES,
    "Ends a batch; what is done is kept.",
    (Answer(200, "It is about to end.", BatchObject),),
    (404, 409),
    (BATCH,),
)

OPERATIONS = (
    LIST_MODELS,
    LIST_FILES,
    CREATE_FILE,
    RETRIEVE_FILE,
    DELETE_FILE,
    DOWNLOAD_FILE,
    LIST_BATCHES,
    CREATE_BATCH,
    RETRIEVE_BATCH,
    CANCEL_BATCH,
)
