"""The address space of the machine tool counterpart: nodesets, their cache, and instances of their types.

Everything here works on the server's own node table, before a client is connected.
"""

from __future__ import annotations

import gzip
import hashlib
import os
import pickle
import sys
import tempfile
import time
from dataclasses import dataclass, field
from datetime import datetime, timezone
from importlib.metadata import version
from pathlib import Path
from typing import Any, Callable, Iterable, Optional

from asyncua import Server, ua
from asyncua.common.structures104 import load_custom_struct
from asyncua.common.xmlimporter import XmlImporter
from asyncua.server.address_space import AddressSpace
from asyncua.server.internal_server import InternalServer

DI = "http://opcfoundation.org/UA/DI/"
IA = "http://opcfoundation.org/UA/IA/"
MACHINERY = "http://opcfoundation.org/UA/Machinery/"
JOBS = "http://opcfoundation.org/UA/Machinery/Jobs/"
MACHINE_TOOL = "http://opcfoundation.org/UA/MachineTool/"
ISA95_V2 = "http://opcfoundation.org/UA/ISA95-JOBCONTROL_V2/"
# The first edition's URI has no slash at its end.
ISA95_V1 = "http://opcfoundation.org/UA/ISA95-JOBCONTROL"
SHOP = "urn:example:shop"

CACHE_DAYS = 3
NODESETS = Path(__file__).resolve().parents[2] / "data" / "opcua"


@dataclass(frozen=True)
class Generation:
    """A set of nodesets that were published to work together."""

    name: str
    folder: str
    files: tuple[str, ...]
    has_job_management: bool

    def paths(self) -> list[Path]:
        return [NODESETS / self.folder / f"{file}.gz" for file in self.files]


GENERATIONS: dict[str, Generation] = {
    "1.01": Generation(
        "1.01",
        "machinetool-1.01",
        (
            "Opc.Ua.Di.NodeSet2.xml",
            "Opc.Ua.IA.NodeSet2.xml",
            "Opc.Ua.Machinery.NodeSet2.xml",
            "Opc.Ua.MachineTool.NodeSet2.xml",
        ),
        has_job_management=False,
    ),
    "1.02": Generation(
        "1.02",
        "machinetool-1.02",
        (
            "Opc.Ua.Di.NodeSet2.xml",
            "Opc.Ua.IA.NodeSet2.xml",
            "Opc.Ua.Machinery.NodeSet2.xml",
            "opc.ua.isa95-jobcontrol.nodeset2.xml",
            "Opc.Ua.Machinery.Jobs.Nodeset2.xml",
            "Opc.Ua.MachineTool.NodeSet2.xml",
        ),
        has_job_management=True,
    ),
}

# The structures of ISA-95 job control, in an order in which each comes after what it contains.
ISA95_STRUCTURES = (3002, 3003, 3006, 3005, 3010, 3011, 3012, 3007, 3008, 3013, 3015)


# --- nodesets and their cache ---------------------------------------------------------------------


class _Importer(XmlImporter):
    """asyncua's importer, without its check of required models.

    DI 1.05.0 asks for a core nodeset that is newer than the one asyncua 1.1.5 carries. What it needs
    from there concerns software update and locking, which no machine tool instance here has.
    """

    async def _check_required_models(self, xmlpath: Any = None, xmlstring: Any = None) -> None:
        return None


class SpaceCache:
    """The imported types on disk, because importing takes several times as long as reading them back.

    The name of the file is a digest of all that goes into it, so a changed nodeset, library or
    namespace order is never answered from an old file. (asyncua's own shelf cache holds the standard
    address space only and gives a node table that cannot be iterated, which the import needs.)
    """

    def __init__(self, folder: Optional[Path], generation: Generation, extra_namespaces: int) -> None:
        digest = hashlib.sha256()
        for part in (version("asyncua"), sys.version, generation.name, str(extra_namespaces)):
            digest.update(part.encode() + b"\0")
        for path in [Path(__file__), *generation.paths()]:
            digest.update(path.read_bytes())
        self._path = folder / f"{generation.folder}-{digest.hexdigest()[:24]}.pickle" if folder else None

    def load(self) -> Optional[tuple[dict, list[str]]]:
        """The node table and the namespace array, or nothing if there is no usable file."""
        try:
            if self._path is None or self._path.stat().st_uid != os.getuid():
                return None
            os.utime(self._path)
            return pickle.loads(self._path.read_bytes())
        except Exception:
            # Whatever is wrong with it: the nodesets are there to be imported again.
            return None

    def store(self, nodes: dict, namespaces: list[str]) -> None:
        """Writes aside and renames, so that servers which start together cannot read half a file."""
        if self._path is None:
            return
        try:
            self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._sweep()
            with tempfile.NamedTemporaryFile(dir=self._path.parent, suffix=".new", delete=False) as file:
                file.write(pickle.dumps((nodes, namespaces), pickle.HIGHEST_PROTOCOL))
            os.replace(file.name, self._path)
        except OSError as error:
            print(f"no cache: {error}", file=sys.stderr)

    def _sweep(self) -> None:
        """Removes what nobody has read for some days, such as the files of earlier versions."""
        oldest = time.time() - CACHE_DAYS * 86_400
        for pattern in ("machinetool-*.pickle", "*.new"):
            for path in self._path.parent.glob(pattern):
                if path.stat().st_mtime < oldest:
                    path.unlink(missing_ok=True)


class CachedInternalServer(InternalServer):
    """Starts from a node table out of the cache, if there is one, instead of the standard nodes."""

    def __init__(self, nodes: Optional[dict], user_manager: Any) -> None:
        super().__init__(user_manager=user_manager)
        self._cached_nodes = nodes

    async def load_standard_address_space(self, shelf_file: Optional[Path] = None) -> None:
        if self._cached_nodes is None:
            await super().load_standard_address_space(shelf_file)
        else:
            self.aspace._nodes = self._cached_nodes


async def import_generation(server: Server, generation: Generation, extra_namespaces: int) -> None:
    """Imports the nodesets, after the namespaces that shift the indices of all that follow."""
    for number in range(1, extra_namespaces + 1):
        await server.register_namespace(f"urn:example:unrelated:{number}")
    for path in generation.paths():
        text = gzip.decompress(path.read_bytes()).decode("utf-8-sig")
        # Not strict: a few nodes of DI hang below core nodes that this asyncua does not have.
        importer = _Importer(server, strict_mode=False, auto_load_definitions=False)
        await importer.import_xml(xmlstring=text)


async def restore_namespaces(server: Server, namespaces: list[str]) -> None:
    """Namespaces 0 and 1 (the standard's and the server's own) are there already."""
    for uri in namespaces[2:]:
        await server.register_namespace(uri)


async def register_isa95_structures(server: Server, namespace: int) -> None:
    """Generates Python classes for the job structures, from their definitions in the nodeset."""
    for identifier in ISA95_STRUCTURES:
        await load_custom_struct(server.get_node(ua.NodeId(identifier, namespace)))


# --- values ---------------------------------------------------------------------------------------


def good(value: Any, variant_type: ua.VariantType, is_array: bool = False) -> ua.DataValue:
    now = datetime.now(timezone.utc)
    return ua.DataValue(
        ua.Variant(value, variant_type, is_array=is_array), SourceTimestamp=now, ServerTimestamp=now
    )


def bad(status: str) -> ua.DataValue:
    now = datetime.now(timezone.utc)
    code = ua.StatusCode(getattr(ua.StatusCodes, status))
    return ua.DataValue(
        ua.Variant(None, ua.VariantType.Null), StatusCode_=code, SourceTimestamp=now, ServerTimestamp=now
    )


# --- instances ------------------------------------------------------------------------------------

HAS_SUBTYPE = ua.NodeId(ua.ObjectIds.HasSubtype)
HAS_TYPE_DEFINITION = ua.NodeId(ua.ObjectIds.HasTypeDefinition)
HAS_MODELLING_RULE = ua.NodeId(ua.ObjectIds.HasModellingRule)
HAS_COMPONENT = ua.NodeId(ua.ObjectIds.HasComponent)
HAS_ORDERED_COMPONENT = ua.NodeId(ua.ObjectIds.HasOrderedComponent)
HAS_PROPERTY = ua.NodeId(ua.ObjectIds.HasProperty)
HAS_ADD_IN = ua.NodeId(ua.ObjectIds.HasAddIn)
ORGANIZES = ua.NodeId(ua.ObjectIds.Organizes)
MANDATORY = ua.NodeId(ua.ObjectIds.ModellingRule_Mandatory)
OPTIONAL = ua.NodeId(ua.ObjectIds.ModellingRule_Optional)

# AddIns that a type declares at several places are one object with several parents. It is named
# after the place that comes first in this order.
NAMED_FIRST = ("Identification", "MachineryBuildingBlocks")


class Space:
    """The server's nodes, addressed by namespace URI, and the making of instances among them."""

    def __init__(self, aspace: AddressSpace, server: Server, namespaces: list[str]) -> None:
        self._aspace = aspace
        self._nodes = server.iserver.node_mgt_service
        self._namespaces = namespaces
        self._hierarchical = self._subtypes(ua.NodeId(ua.ObjectIds.HierarchicalReferences))
        self._hierarchical.discard(HAS_SUBTYPE)
        self._declared: dict[ua.NodeId, list[ua.ReferenceDescription]] = {}

    def index(self, uri: str) -> int:
        return self._namespaces.index(uri)

    @property
    def namespaces(self) -> list[str]:
        return list(self._namespaces)

    def standard(self, uri: str, identifier: int) -> ua.NodeId:
        return ua.NodeId(identifier, self.index(uri))

    def shop(self, text: str) -> ua.NodeId:
        return ua.NodeId(text, self.index(SHOP))

    def name(self, uri: str, text: str) -> ua.QualifiedName:
        return ua.QualifiedName(text, self.index(uri))

    def exists(self, node: ua.NodeId) -> bool:
        return node in self._aspace

    def attribute(self, node: ua.NodeId, attribute: ua.AttributeIds) -> Any:
        value = self._aspace.read_attribute_value(node, attribute)
        return value.Value.Value if value.StatusCode.is_good() and value.Value is not None else None

    async def write(self, node: ua.NodeId, value: ua.DataValue) -> None:
        status = await self._aspace.write_attribute_value(node, ua.AttributeIds.Value, value)
        if not status.is_good():
            raise ValueError(f"cannot write {node.to_string()}: {status.name}")

    def read(self, node: ua.NodeId) -> ua.DataValue:
        return self._aspace.read_attribute_value(node, ua.AttributeIds.Value)

    def on_call(self, method: ua.NodeId, callback: Callable) -> None:
        self._aspace.add_method_callback(method, callback)

    # Navigation among the types.

    def _references(self, node: ua.NodeId, forward: bool = True) -> Iterable[ua.ReferenceDescription]:
        return (r for r in self._aspace[node].references if r.IsForward == forward)

    def target(self, node: ua.NodeId, reference: ua.NodeId, forward: bool = True) -> Optional[ua.NodeId]:
        found = (r.NodeId for r in self._references(node, forward) if r.ReferenceTypeId == reference)
        return next(found, None)

    def _subtypes(self, root: ua.NodeId) -> set[ua.NodeId]:
        found, pending = set(), [root]
        while pending:
            node = pending.pop()
            found.add(node)
            pending += [r.NodeId for r in self._references(node) if r.ReferenceTypeId == HAS_SUBTYPE]
        return found

    def _with_supertypes(self, node: Optional[ua.NodeId]) -> list[ua.NodeId]:
        chain = []
        while node is not None and node in self._aspace:
            chain.append(node)
            node = self.target(node, HAS_SUBTYPE, forward=False)
        return chain

    def builtin_type(self, variable: ua.NodeId) -> ua.VariantType:
        """How the values of a variable are encoded, which its data type tells through its supertypes."""
        data_type = self.attribute(variable, ua.AttributeIds.DataType)
        for ancestor in self._with_supertypes(data_type):
            if ancestor.NamespaceIndex == 0:
                if ancestor.Identifier == ua.ObjectIds.Enumeration:
                    return ua.VariantType.Int32
                if ancestor.Identifier == ua.ObjectIds.UInteger:
                    return ua.VariantType.UInt32
                if ancestor.Identifier <= ua.VariantType.DiagnosticInfo.value:
                    return ua.VariantType(ancestor.Identifier)
        raise ValueError(f"{variable.to_string()} has an unknown data type")

    def declarations(self, node: ua.NodeId) -> list[ua.ReferenceDescription]:
        """What a type, or an instance declaration, says that its instances have.

        The nearest word counts: a declaration's own, then its type's, then the supertypes'.
        """
        if node not in self._declared:
            self._declared[node] = self._collect_declarations(node)
        return self._declared[node]

    def _collect_declarations(self, node: ua.NodeId) -> list[ua.ReferenceDescription]:
        node_class = self.attribute(node, ua.AttributeIds.NodeClass)
        if node_class in (ua.NodeClass.ObjectType, ua.NodeClass.VariableType):
            sources = self._with_supertypes(node)
        else:
            sources = [node, *self._with_supertypes(self.target(node, HAS_TYPE_DEFINITION))]
        by_name: dict[ua.QualifiedName, ua.ReferenceDescription] = {}
        for source in sources:
            for reference in self._references(source):
                if reference.ReferenceTypeId in self._hierarchical:
                    by_name.setdefault(reference.BrowseName, reference)
        return list(by_name.values())

    def modelling_rule(self, declaration: ua.NodeId) -> Optional[ua.NodeId]:
        return self.target(declaration, HAS_MODELLING_RULE)

    # Making nodes.

    def add(
        self,
        node: ua.NodeId,
        parent: ua.NodeId,
        reference: ua.NodeId,
        browse_name: ua.QualifiedName,
        attributes: Any,
        node_class: ua.NodeClass,
        type_definition: Optional[ua.NodeId] = None,
    ) -> ua.NodeId:
        attributes.DisplayName = ua.LocalizedText(browse_name.Name)
        item = ua.AddNodesItem()
        item.RequestedNewNodeId = node
        item.ParentNodeId = parent
        item.ReferenceTypeId = reference
        item.BrowseName = browse_name
        item.NodeClass = node_class
        item.NodeAttributes = attributes
        if type_definition is not None:
            item.TypeDefinition = type_definition
        self._nodes.add_nodes([item])[0].StatusCode.check()
        for added in self._references(node):
            # asyncua says that every type definition is a data type; clients filter by this.
            if added.ReferenceTypeId == HAS_TYPE_DEFINITION:
                added.NodeClass = self.attribute(added.NodeId, ua.AttributeIds.NodeClass)
        return node

    def add_object(
        self,
        node: ua.NodeId,
        parent: ua.NodeId,
        browse_name: ua.QualifiedName,
        reference: ua.NodeId = HAS_COMPONENT,
        type_definition: ua.NodeId = ua.NodeId(ua.ObjectIds.BaseObjectType),
    ) -> ua.NodeId:
        return self.add(
            node, parent, reference, browse_name, ua.ObjectAttributes(), ua.NodeClass.Object, type_definition
        )

    def add_variable(
        self,
        node: ua.NodeId,
        parent: ua.NodeId,
        browse_name: ua.QualifiedName,
        value: ua.Variant,
        data_type: ua.NodeId,
        reference: ua.NodeId = HAS_COMPONENT,
        type_definition: ua.NodeId = ua.NodeId(ua.ObjectIds.BaseDataVariableType),
    ) -> ua.NodeId:
        attributes = ua.VariableAttributes()
        attributes.Value = value
        attributes.DataType = data_type
        attributes.ValueRank = ua.ValueRank.OneDimension if value.is_array else ua.ValueRank.Scalar
        return self.add(
            node, parent, reference, browse_name, attributes, ua.NodeClass.Variable, type_definition
        )

    def add_property(
        self, parent: ua.NodeId, browse_name: ua.QualifiedName, value: ua.Variant, data_type: ua.NodeId
    ) -> ua.NodeId:
        node = self.shop(f"{parent.Identifier}.{browse_name.Name}")
        return self.add_variable(
            node, parent, browse_name, value, data_type, HAS_PROPERTY, ua.NodeId(ua.ObjectIds.PropertyType)
        )

    def link(self, parent: ua.NodeId, child: ua.NodeId, reference: ua.NodeId) -> None:
        """A further parent for a node, in both directions, with the child's type in the reference."""
        items = []
        for source, target, forward in ((parent, child, True), (child, parent, False)):
            item = ua.AddReferencesItem()
            item.SourceNodeId, item.TargetNodeId = source, target
            item.ReferenceTypeId, item.IsForward = reference, forward
            items.append(item)
        for status in self._nodes.add_references(items):
            status.check()
        added = next(r for r in self._references(parent) if r.NodeId == child)
        added.TypeDefinition = self.target(child, HAS_TYPE_DEFINITION) or ua.NodeId()

    def instantiate(
        self,
        type_id: ua.NodeId,
        node: ua.NodeId,
        parent: ua.NodeId,
        browse_name: ua.QualifiedName,
        reference: ua.NodeId,
        wanted: Callable[[str], bool],
    ) -> ua.NodeId:
        """An instance of an object type: what is mandatory, and of what is optional the wanted.

        asyncua has a function for this too. It makes all of the optional members or none, a node for
        each placeholder as well, and copies of AddIns that should be one object with several parents.
        """
        self.add_object(node, parent, browse_name, reference, type_id)
        _Instance(self, node, wanted).fill(type_id, node, "")
        return node


@dataclass
class _Instance:
    """One instantiation under way."""

    space: Space
    root: ua.NodeId
    wanted: Callable[[str], bool]
    add_ins: dict[ua.NodeId, ua.NodeId] = field(default_factory=dict)

    def fill(self, declaration: ua.NodeId, node: ua.NodeId, path: str) -> None:
        members = self.space.declarations(declaration)
        for member in sorted(members, key=lambda m: self._naming_order(m.BrowseName.Name)):
            member_path = f"{path}.{member.BrowseName.Name}".lstrip(".")
            rule = self.space.modelling_rule(member.NodeId)
            if rule == MANDATORY or (rule == OPTIONAL and self.wanted(member_path)):
                self._add_member(member, node, member_path)

    @staticmethod
    def _naming_order(name: str) -> int:
        return NAMED_FIRST.index(name) if name in NAMED_FIRST else len(NAMED_FIRST)

    def _add_member(self, member: ua.ReferenceDescription, parent: ua.NodeId, path: str) -> None:
        is_add_in = member.ReferenceTypeId == HAS_ADD_IN
        if is_add_in and member.NodeId in self.add_ins:
            self.space.link(parent, self.add_ins[member.NodeId], HAS_ADD_IN)
            return
        node = self.space.shop(f"{self.root.Identifier}.{path}")
        self.space.add(
            node,
            parent,
            member.ReferenceTypeId,
            member.BrowseName,
            self._attributes(member),
            member.NodeClass,
            self.space.target(member.NodeId, HAS_TYPE_DEFINITION),
        )
        if is_add_in:
            self.add_ins[member.NodeId] = node
        self.fill(member.NodeId, node, path)

    def _attributes(self, member: ua.ReferenceDescription) -> Any:
        read = self.space.attribute
        if member.NodeClass == ua.NodeClass.Object:
            return ua.ObjectAttributes()
        if member.NodeClass == ua.NodeClass.Method:
            return ua.MethodAttributes()
        attributes = ua.VariableAttributes()
        attributes.DataType = read(member.NodeId, ua.AttributeIds.DataType)
        attributes.ValueRank = read(member.NodeId, ua.AttributeIds.ValueRank)
        attributes.ArrayDimensions = read(member.NodeId, ua.AttributeIds.ArrayDimensions) or []
        attributes.Value = self.space.read(member.NodeId).Value or ua.Variant()
        return attributes
