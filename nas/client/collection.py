# Made by `python -m nas.client.derive` from nas/client/asynchronous/collection.py: change that one.
"""The resources of one kind: read, waited for, changed, created."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, Generic, TypeVar
from urllib.parse import quote

from nas.client.resource import Product, Resource
from nas.client.transport import Transport

T = TypeVar("T", bound=Resource)
ProductT = TypeVar("ProductT", bound=Product)


class Collection(Generic[T]):
    """The resources of one kind."""

    path: str
    kind: type[T]

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def get(self, resource_id: str) -> T:
        """One resource; ResourceNotFoundError when there is none."""
        return self._as_resource(self._transport.get(f"{self.path}/{quote(resource_id, safe='')}"))

    def list(self, **filters: Any) -> Iterator[T]:
        """Every resource, newest first, read page by page."""
        for data in self._transport.pages(self.path, filters):
            yield self._as_resource(data)

    def wait(
        self,
        resource_id: str,
        timeout: float | None = None,
        on_progress: Callable[[T], None] | None = None,
    ) -> T:
        """The resource once its job has succeeded; see `Resource.wait`."""
        resource = self.get(resource_id)
        return resource.wait(timeout=timeout, on_progress=on_progress)

    def _unread(self, resource_id: str) -> T:
        """Enough of the resource to ask for what lies below it, without a request of its own."""
        path = f"{self.path}/{quote(resource_id, safe='')}"
        return self._as_resource({"id": resource_id, "links": {"self": path}})

    def _as_resource(self, data: Any) -> T:
        return self.kind(data, self._transport)


class NamedCollection(Collection[ProductT]):
    """What a job makes: it has names to be changed, and can be deleted."""

    def update(
        self,
        resource_id: str,
        *,
        display_name: str | None = None,
        labels: Mapping[str, str] | None = None,
    ) -> ProductT:
        """See `Product.update`."""
        return self._unread(resource_id).update(display_name=display_name, labels=labels)

    def delete(self, resource_id: str) -> None:
        """See `Product.delete`."""
        self._unread(resource_id).delete()


class Products(NamedCollection[ProductT]):
    """Resources that a request to their own collection creates."""

    def create_from(self, body: Mapping[str, Any]) -> ProductT:
        """Create one from a whole request body, as docs/openapi.json describes it; the service checks it."""
        return self._as_resource(self._transport.create(self.path, body))
