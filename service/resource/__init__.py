"""Resources, each from one declaration; see declaration.Resource."""

from service.resource.declaration import Resource
from service.resource.fields import ID, Time

__all__ = ["ID", "Resource", "Time"]
