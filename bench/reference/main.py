"""The FastAPI service that people come from, as its README lays it out: what ours is compared with.

    uvicorn bench.reference.main:app --loop uvloop --http httptools --no-access-log

Pydantic at the edge, dataclasses with slots between, SQLAlchemy's async ORM below.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import APIRouter, FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.middleware.cors import CORSMiddleware
from fastapi.responses import JSONResponse
from sqlalchemy.exc import DBAPIError

from bench.reference.database import engine
from bench.reference.routers import item, system


@asynccontextmanager
async def lifespan(_: FastAPI) -> AsyncIterator[None]:
    yield
    await engine.dispose()


def create_app(items: APIRouter) -> FastAPI:
    # No ORJSONResponse: with a response model, this FastAPI lets Pydantic write the JSON bytes
    # itself, which is faster, and warns that the class is deprecated.
    app = FastAPI(title="Items", lifespan=lifespan)
    app.add_middleware(
        CORSMiddleware,
        allow_origins=["http://localhost"],
        allow_credentials=True,
        allow_methods=["*"],
        allow_headers=["*"],
    )
    app.include_router(items)
    app.include_router(system.router)
    app.add_exception_handler(RequestValidationError, invalid)
    app.add_exception_handler(DBAPIError, refused)
    return app


async def invalid(_: Request, error: Exception) -> JSONResponse:
    """FastAPI's own answer without the input: repeating a NaN or half a surrogate is a 500."""
    assert isinstance(error, RequestValidationError)
    told = [{name: one[name] for name in ("loc", "msg", "type")} for one in error.errors()]
    return JSONResponse({"detail": told}, 422)


async def refused(_: Request, error: Exception) -> JSONResponse:
    """422 for a value that the database does not take: a NUL in a text, say."""
    state = getattr(getattr(error, "orig", None), "sqlstate", None) or ""
    if not state.startswith(("22", "23")):
        raise error
    return JSONResponse({"detail": "The database refuses a value"}, 422)


app = create_app(item.router)
