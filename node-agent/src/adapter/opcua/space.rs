//! A server's address space: found by name, with limits, and never by a namespace's index.
//!
//! Names are looked up among a node's children without their namespace: generations of the companion
//! specifications differ in which namespace a name belongs to, and no two children of one object that matter
//! here share a name.

use super::Trouble;
use opcua_client::Session;
use opcua_types::{
    AttributeId, BrowseDescription, BrowseDirection, BrowseResultMask, DataValue, Identifier, NodeClass,
    NodeId, ObjectId, ReadValueId, ReferenceDescription, ReferenceTypeId, TimestampsToReturn, VariableId,
    Variant,
};
use std::collections::HashMap;

/// Most children of a node that are looked at.
const CHILDREN_MAX: usize = 10_000;
/// Most nodes whose children are looked at in one discovery.
const BROWSED_MAX: usize = 5_000;
/// Children asked for at once.
const CHILDREN_AT_ONCE: u32 = 1_000;
/// Most namespaces of a server that are looked at.
const NAMESPACES_MAX: usize = 256;
/// Deepest chain of types.
const TYPES_DEEP_MAX: usize = 32;

/// A node below another.
#[derive(Clone, Debug)]
pub struct Child {
    /// Its id.
    pub id: NodeId,
    /// Its browse name, without the namespace.
    pub name: String,
    /// The URI of its browse name's namespace.
    pub namespace: String,
    /// What it is.
    pub class: NodeClass,
    /// The id of its type.
    pub kind: NodeId,
}

/// A server's address space, as far as it was looked at.
pub struct Space<'a> {
    session: &'a Session,
    namespaces: Vec<String>,
    children: HashMap<NodeId, Vec<Child>>,
}

impl<'a> Space<'a> {
    /// Reads the server's namespaces.
    pub async fn open(session: &'a Session) -> Result<Self, Trouble> {
        let mut space = Self { session, namespaces: Vec::new(), children: HashMap::new() };
        let value = space.read(&VariableId::Server_NamespaceArray.into()).await?;
        let Some(Variant::Array(array)) = value else {
            return Err(Trouble::Unusable("it has no namespace array".to_owned()));
        };
        let uris = array.values.iter().take(NAMESPACES_MAX).map(|uri| match uri {
            Variant::String(uri) => uri.to_string(),
            _ => String::new(),
        });
        space.namespaces = uris.collect();
        Ok(space)
    }

    /// The server's namespaces, in the order of their indices.
    pub fn namespaces(&self) -> &[String] {
        &self.namespaces
    }

    /// A namespace's index.
    pub fn index(&self, uri: &str) -> Option<u16> {
        self.namespaces.iter().position(|known| known == uri).and_then(|at| u16::try_from(at).ok())
    }

    /// A namespace's URI; empty where the index is not one.
    pub fn uri(&self, index: u16) -> &str {
        self.namespaces.get(usize::from(index)).map_or("", String::as_str)
    }

    /// The id of a node with a number, if the server has its namespace.
    pub fn numbered(&self, uri: &str, number: u32) -> Option<NodeId> {
        self.index(uri).map(|index| NodeId::new(index, number))
    }

    /// The node that a mapping names: `nsu=URI;s=NAME`, `nsu=URI;i=NUMBER` (also `g=`, `b=`), `i=NUMBER` of
    /// the base namespace, or a path of browse names below the machine, e.g. `Monitoring/Spindle1/Load`.
    /// An index (`ns=`) is refused: it changes when the server restarts.
    pub async fn named(&mut self, machine: &NodeId, name: &str) -> Result<Option<NodeId>, Trouble> {
        if name.starts_with("ns=") {
            let why = format!("{name:?} names a namespace by its index, which changes; write nsu=URI;...");
            return Err(Trouble::Mapping(why));
        }
        if let Some((uri, id)) = name.strip_prefix("nsu=").and_then(|rest| rest.split_once(';')) {
            let Some(index) = self.index(uri) else { return Ok(None) };
            return Ok(format!("ns={index};{id}").parse().ok());
        }
        if ["i=", "s=", "g=", "b="].iter().any(|prefix| name.starts_with(prefix)) {
            return Ok(name.parse().ok());
        }
        self.path(machine, name).await
    }

    /// The node at the end of a path of browse names.
    pub async fn path(&mut self, from: &NodeId, path: &str) -> Result<Option<NodeId>, Trouble> {
        let mut at = from.clone();
        for name in path.split('/') {
            match self.child(&at, name).await? {
                Some(child) => at = child.id,
                None => return Ok(None),
            }
        }
        Ok(Some(at))
    }

    /// A node's child of this name.
    pub async fn child(&mut self, of: &NodeId, name: &str) -> Result<Option<Child>, Trouble> {
        Ok(self.children(of).await?.iter().find(|child| child.name == name).cloned())
    }

    /// A node's children.
    pub async fn children(&mut self, of: &NodeId) -> Result<&[Child], Trouble> {
        if !self.children.contains_key(of) {
            if self.children.len() >= BROWSED_MAX {
                return Err(Trouble::Unusable(format!("more than {BROWSED_MAX} nodes to look at")));
            }
            let found =
                self.browse(of, ReferenceTypeId::HierarchicalReferences, BrowseDirection::Forward).await?;
            let children = found.iter().map(|reference| self.child_of(reference)).collect();
            self.children.insert(of.clone(), children);
        }
        Ok(self.children.get(of).map_or(&[], Vec::as_slice))
    }

    /// Whether a type is another, or descends from it.
    pub async fn descends(&self, kind: &NodeId, from: &NodeId) -> Result<bool, Trouble> {
        let mut kind = kind.clone();
        for _ in 0..TYPES_DEEP_MAX {
            if kind == *from {
                return Ok(true);
            }
            let above = self.browse(&kind, ReferenceTypeId::HasSubtype, BrowseDirection::Inverse).await?;
            match above.first() {
                Some(reference) => kind = reference.node_id.node_id.clone(),
                None => return Ok(false),
            }
        }
        Ok(false)
    }

    /// A variable's value, if it has a good one.
    pub async fn read(&self, node: &NodeId) -> Result<Option<Variant>, Trouble> {
        Ok(self.read_all(std::slice::from_ref(node)).await?.pop().flatten())
    }

    /// Variables' values, in order; none for one that has no good value.
    pub async fn read_all(&self, nodes: &[NodeId]) -> Result<Vec<Option<Variant>>, Trouble> {
        let wanted: Vec<_> = nodes
            .iter()
            .map(|node| ReadValueId {
                node_id: node.clone(),
                attribute_id: AttributeId::Value as u32,
                ..ReadValueId::default()
            })
            .collect();
        let values = self.session.read(&wanted, TimestampsToReturn::Neither, 0.0).await?;
        if values.len() != nodes.len() {
            return Err(Trouble::Unusable(format!("it read {} of {} values", values.len(), nodes.len())));
        }
        let good =
            |value: DataValue| value.value.filter(|_| value.status.is_none_or(|status| status.is_good()));
        Ok(values.into_iter().map(good).collect())
    }

    /// A variable's value in words; empty where it has none.
    pub async fn words(&mut self, of: &NodeId, path: &str) -> Result<String, Trouble> {
        let Some(node) = self.path(of, path).await? else { return Ok(String::new()) };
        Ok(self.read(&node).await?.map(|value| words(&value)).unwrap_or_default())
    }

    async fn browse(
        &self,
        node: &NodeId,
        along: ReferenceTypeId,
        direction: BrowseDirection,
    ) -> Result<Vec<ReferenceDescription>, Trouble> {
        let wanted = BrowseDescription {
            node_id: node.clone(),
            browse_direction: direction,
            reference_type_id: along.into(),
            include_subtypes: true,
            node_class_mask: 0,
            result_mask: BrowseResultMask::All as u32,
        };
        let mut found = Vec::new();
        let mut results = self.session.browse(&[wanted], CHILDREN_AT_ONCE, None).await?;
        while let Some(result) = results.pop() {
            found.extend(result.references.unwrap_or_default());
            let more = result.continuation_point;
            if more.is_null_or_empty() {
                break;
            }
            let enough = found.len() >= CHILDREN_MAX;
            results = self.session.browse_next(enough, &[more]).await?;
            if enough {
                break;
            }
        }
        Ok(found)
    }

    fn child_of(&self, reference: &ReferenceDescription) -> Child {
        Child {
            id: reference.node_id.node_id.clone(),
            name: reference.browse_name.name.to_string(),
            namespace: self.uri(reference.browse_name.namespace_index).to_owned(),
            class: reference.node_class,
            kind: reference.type_definition.node_id.clone(),
        }
    }
}

/// The folder of everything that a server is about.
pub fn objects() -> NodeId {
    ObjectId::ObjectsFolder.into()
}

/// A value in words; empty where it has none.
pub fn words(value: &Variant) -> String {
    match value {
        Variant::String(text) => text.value().clone().unwrap_or_default(),
        Variant::LocalizedText(text) => text.text.value().clone().unwrap_or_default(),
        Variant::DateTime(at) => at.to_rfc3339(),
        Variant::Empty => String::new(),
        other => other.to_string(),
    }
}

/// A node's number; none where its id is not a number.
pub fn number(id: &NodeId) -> Option<u32> {
    match id.identifier {
        Identifier::Numeric(number) => Some(number),
        _ => None,
    }
}
