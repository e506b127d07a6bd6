//! ISA-95 job control, version 2 (OPC 10031-4): the structures that are needed, by hand, and the calls.
//!
//! The library could learn any structure from the server, but then one value that does not keep to what the
//! server says of it would break the line. So lists of jobs arrive as bytes, and are read here with limits;
//! bytes that cannot be read say so, and nothing else happens.
//!
//! [`Verb`] has no `StoreAndStart`. Start gives permission; the machine decides when to move.

pub use crate::remote::Verb;

use super::{Trouble, space};
use opcua_client::Session;
use opcua_types::type_loader::ByteStringBody;
use opcua_types::{
    BinaryDecodable, BinaryEncodable, ByteString, CallMethodRequest, ContextOwned, DateTime, EUInformation,
    ExtensionObject, LocalizedText, NodeId, RelativePath, UAString, Variant, VariantScalarTypeId,
};
use std::collections::BTreeMap;
use std::io::Cursor;

/// The URI of the job control namespace.
pub const JOB_CONTROL: &str = "http://opcfoundation.org/UA/ISA95-JOBCONTROL_V2/";
/// Encodings in the published nodeset.
const JOB_ORDER_ENCODING: u32 = 5014;
const JOB_ORDER_AND_STATE_ENCODING: u32 = 5032;
/// Most jobs of a list that are read.
const JOBS_MAX: usize = 1_000;
/// Deepest nesting of parameters.
const DEPTH_MAX: usize = 16;

/// A job's state, by its number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum JobState {
    /// Stored.
    NotAllowedToStart,
    /// The machine may begin it.
    AllowedToStart,
    /// At work.
    Running,
    /// Paused.
    Interrupted,
    /// Done.
    Ended,
    /// Broken off.
    Aborted,
    /// A number that the specification does not have.
    Other(u32),
}

impl From<u32> for JobState {
    fn from(number: u32) -> Self {
        match number {
            1 => Self::NotAllowedToStart,
            2 => Self::AllowedToStart,
            3 => Self::Running,
            4 => Self::Interrupted,
            5 => Self::Ended,
            6 => Self::Aborted,
            other => Self::Other(other),
        }
    }
}

/// A job on a machine's list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Job {
    /// Its id.
    pub id: String,
    /// How it stands.
    pub state: JobState,
}

/// A job to be stored.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Order {
    /// Its id.
    pub id: String,
    /// In words, for the operator.
    pub description: String,
    /// The program; empty for none.
    pub program: String,
    /// When it is to start, ms since the Unix epoch.
    pub start_ms: Option<i64>,
    /// When it is to end, ms since the Unix epoch.
    pub end_ms: Option<i64>,
}

/// What a call was answered with: a bit map.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReturnStatus(pub u64);

impl ReturnStatus {
    const BITS: [(u64, &'static str); 6] = [
        (1, "done"),
        (2, "no such job"),
        (4, "not a command for the job as it stands"),
        (8, "not allowed in the machine's state"),
        (16, "the machine takes no more jobs"),
        (1 << 32, "the request is not understood"),
    ];

    /// Whether it was done.
    pub fn is_done(self) -> bool {
        self.0 == 1
    }
}

impl std::fmt::Display for ReturnStatus {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let words: Vec<_> =
            Self::BITS.iter().filter(|(bit, _)| self.0 & bit != 0).map(|(_, words)| *words).collect();
        match words.as_slice() {
            [] => write!(f, "return status {}", self.0),
            words => write!(f, "{} (return status {})", words.join("; "), self.0),
        }
    }
}

/// A machine's job control, by its object and methods.
#[derive(Clone, Debug)]
pub struct JobControl {
    object: NodeId,
    methods: BTreeMap<Verb, NodeId>,
    namespace: u16,
}

impl JobControl {
    /// The methods that an object has; every one is optional.
    pub async fn find(space: &mut space::Space<'_>, object: NodeId) -> Result<Option<Self>, Trouble> {
        let Some(namespace) = space.index(JOB_CONTROL) else { return Ok(None) };
        let mut methods = BTreeMap::new();
        for (verb, name, _) in Verb::NAMED {
            let method = space.child(&object, name).await?;
            methods.extend(method.map(|method| (verb, method.id)));
        }
        Ok(Some(Self { object, methods, namespace }))
    }

    /// What can be asked of it.
    pub fn verbs(&self) -> impl Iterator<Item = Verb> {
        self.methods.keys().copied()
    }

    /// Stores a job, or replaces it.
    pub async fn store(&self, session: &Session, verb: Verb, order: &Order) -> Result<ReturnStatus, Trouble> {
        let body = ByteStringBody::new(
            ByteString::from(order.encode()),
            NodeId::new(self.namespace, JOB_ORDER_ENCODING),
        );
        self.call(session, verb, ExtensionObject::new(body).into()).await
    }

    /// Asks something of a job that is there.
    pub async fn ask(&self, session: &Session, verb: Verb, job_id: &str) -> Result<ReturnStatus, Trouble> {
        self.call(session, verb, UAString::from(job_id).into()).await
    }

    async fn call(&self, session: &Session, verb: Verb, subject: Variant) -> Result<ReturnStatus, Trouble> {
        let Some(method) = self.methods.get(&verb) else {
            return Err(Trouble::Refused(format!("the machine has no {}", verb.name())));
        };
        let no_comment = Variant::from((VariantScalarTypeId::LocalizedText, Vec::<Variant>::new()));
        let request: CallMethodRequest =
            (self.object.clone(), method.clone(), Some(vec![subject, no_comment])).into();
        let answered = session.call(vec![request]).await?.pop();
        let answered = answered.ok_or_else(|| Trouble::Unusable("a call was not answered".to_owned()))?;
        if answered.status_code.is_bad() {
            return Err(Trouble::Refused(format!("{} was refused: {}", verb.name(), answered.status_code)));
        }
        let status = answered.output_arguments.unwrap_or_default().into_iter().next();
        match status.and_then(|status| status.as_f64()) {
            Some(status) if status >= 0.0 => Ok(ReturnStatus(status as u64)),
            _ => Err(Trouble::Unusable(format!("{} was answered without a return status", verb.name()))),
        }
    }
}

impl Order {
    /// ISA95JobOrderDataType: a mask of the optional fields, the id, and the fields that there are.
    pub fn encode(&self) -> Vec<u8> {
        let owned = ContextOwned::default();
        let context = owned.context();
        let mut mask = 0u32;
        let mut fields = Vec::new();
        let mut field = |bit: u32, bytes: Vec<u8>| {
            mask |= 1 << bit;
            fields.extend(bytes);
        };
        let text = |text: &str| LocalizedText::new("", text);
        field(0, Some(vec![text(&self.description)]).encode_to_vec(&context));
        if !self.program.is_empty() {
            // An array of one ISA95WorkMasterDataType, which has no optional field.
            let mut bytes = 1i32.encode_to_vec(&context);
            bytes.extend(0u32.encode_to_vec(&context));
            bytes.extend(UAString::from(self.program.as_str()).encode_to_vec(&context));
            field(1, bytes);
        }
        for (bit, at_ms) in [(2, self.start_ms), (3, self.end_ms)] {
            if let Some(at) = at_ms.and_then(instant) {
                field(bit, at.encode_to_vec(&context));
            }
        }
        let mut bytes = mask.encode_to_vec(&context);
        bytes.extend(UAString::from(self.id.as_str()).encode_to_vec(&context));
        bytes.extend(fields);
        bytes
    }
}

fn instant(at_ms: i64) -> Option<DateTime> {
    let at = jiff::Timestamp::from_millisecond(at_ms).ok()?;
    DateTime::parse_from_rfc3339(&at.to_string()).ok()
}

/// The jobs of a machine's list; none where it is not one, or cannot be read.
pub fn list(value: &Variant, namespaces: &[String]) -> Option<Vec<Job>> {
    let objects = match value {
        Variant::Array(array) => array.values.as_slice(),
        Variant::Empty => &[],
        _ => return None,
    };
    objects.iter().take(JOBS_MAX).map(|object| job(object, namespaces)).collect()
}

fn job(value: &Variant, namespaces: &[String]) -> Option<Job> {
    let Variant::ExtensionObject(object) = value else { return None };
    let body = object.inner_as::<ByteStringBody>()?;
    let encoding = body.encoding_id();
    let known = namespaces.get(usize::from(encoding.namespace)).is_some_and(|uri| uri == JOB_CONTROL);
    if !known || space::number(encoding) != Some(JOB_ORDER_AND_STATE_ENCODING) {
        return None;
    }
    read(body.raw_body().as_ref())
}

/// A job with its state, from the body of its structure: ISA95JobOrderAndStateDataType.
pub fn read(body: &[u8]) -> Option<Job> {
    let owned = ContextOwned::default();
    let mut read = Reader { bytes: Cursor::new(body), context: &owned.context() };
    let id = read.order()?;
    let states: Vec<u32> = read.array(|read| {
        read.take::<RelativePath>()?;
        read.take::<LocalizedText>()?;
        read.take::<u32>()
    })?;
    Some(Job { id, state: JobState::from(*states.first()?) })
}

/// Reads structures field by field.
struct Reader<'a, 'c> {
    bytes: Cursor<&'a [u8]>,
    context: &'a opcua_types::Context<'c>,
}

impl Reader<'_, '_> {
    fn take<T: BinaryDecodable>(&mut self) -> Option<T> {
        T::decode(&mut self.bytes, self.context).ok()
    }

    fn array<T>(&mut self, mut element: impl FnMut(&mut Self) -> Option<T>) -> Option<Vec<T>> {
        let length = usize::try_from(self.take::<i32>()?.max(0)).ok()?;
        (0..length.min(JOBS_MAX + 1))
            .map(|_| element(self))
            .collect::<Option<Vec<_>>>()
            .filter(|_| length <= JOBS_MAX)
    }

    /// ISA95JobOrderDataType; its id.
    fn order(&mut self) -> Option<String> {
        let mask: u32 = self.take()?;
        let id: UAString = self.take()?;
        let optional: [fn(&mut Self) -> Option<()>; 10] = [
            |read| read.array(Self::take::<LocalizedText>).map(drop),
            |read| read.array(Self::work_master).map(drop),
            |read| read.take::<DateTime>().map(drop),
            |read| read.take::<DateTime>().map(drop),
            |read| read.take::<i16>().map(drop),
            |read| read.array(|read| read.parameter(0)).map(drop),
            |read| read.array(|read| read.resource(1)).map(drop),
            |read| read.array(|read| read.resource(1)).map(drop),
            |read| read.array(|read| read.resource(1)).map(drop),
            |read| read.array(Self::material).map(drop),
        ];
        for (bit, field) in optional.into_iter().enumerate() {
            if mask & (1 << bit) != 0 {
                field(self)?;
            }
        }
        Some(id.value().clone().unwrap_or_default())
    }

    /// ISA95WorkMasterDataType.
    fn work_master(&mut self) -> Option<()> {
        let mask: u32 = self.take()?;
        self.take::<UAString>()?;
        if mask & 1 != 0 {
            self.take::<LocalizedText>()?;
        }
        if mask & 2 != 0 {
            self.array(|read| read.parameter(0))?;
        }
        Some(())
    }

    /// ISA95ParameterDataType, and ISA95PropertyDataType, which is built alike.
    fn parameter(&mut self, depth: usize) -> Option<()> {
        let mask: u32 = self.take()?;
        self.take::<UAString>()?;
        self.take::<Variant>()?;
        if mask & 1 != 0 {
            self.array(Self::take::<LocalizedText>)?;
        }
        if mask & 2 != 0 {
            self.take::<EUInformation>()?;
        }
        if mask & 4 != 0 {
            if depth >= DEPTH_MAX {
                return None;
            }
            self.array(|read| read.parameter(depth + 1))?;
        }
        Some(())
    }

    /// ISA95PersonnelDataType, ISA95EquipmentDataType, ISA95PhysicalAssetDataType: ids, then description, use,
    /// quantity, unit and properties, each optional.
    fn resource(&mut self, ids: usize) -> Option<()> {
        let mask: u32 = self.take()?;
        for _ in 0..ids {
            self.take::<UAString>()?;
        }
        self.usage(mask)
    }

    /// ISA95MaterialDataType: its four ids are optional too.
    fn material(&mut self) -> Option<()> {
        let mask: u32 = self.take()?;
        for bit in 0..4 {
            if mask & (1 << bit) != 0 {
                self.take::<UAString>()?;
            }
        }
        self.usage(mask >> 4)
    }

    fn usage(&mut self, mask: u32) -> Option<()> {
        if mask & 1 != 0 {
            self.array(Self::take::<LocalizedText>)?;
        }
        for bit in 1..3 {
            if mask & (1 << bit) != 0 {
                self.take::<UAString>()?;
            }
        }
        if mask & 8 != 0 {
            self.take::<EUInformation>()?;
        }
        if mask & 16 != 0 {
            self.array(|read| read.parameter(0))?;
        }
        Some(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn on_list(order: &[u8], state: u32, encoding: u32) -> Variant {
        let owned = ContextOwned::default();
        let context = owned.context();
        let mut bytes = order.to_vec();
        bytes.extend(1i32.encode_to_vec(&context));
        bytes.extend(RelativePath::default().encode_to_vec(&context));
        bytes.extend(LocalizedText::new("", "Running").encode_to_vec(&context));
        bytes.extend(state.encode_to_vec(&context));
        let object =
            ExtensionObject::new(ByteStringBody::new(ByteString::from(bytes), NodeId::new(1, encoding)));
        Variant::from((VariantScalarTypeId::ExtensionObject, vec![Variant::from(object)]))
    }

    fn namespaces() -> Vec<String> {
        vec!["http://opcfoundation.org/UA/".to_owned(), JOB_CONTROL.to_owned()]
    }

    #[test]
    fn a_stored_order_is_read_back_from_a_list() {
        let order = Order {
            id: "b1/0".into(),
            description: "Ten brackets".into(),
            program: "P4711".into(),
            start_ms: Some(1_700_000_000_000),
            end_ms: Some(1_700_000_600_000),
        };
        let listed = on_list(&order.encode(), 3, JOB_ORDER_AND_STATE_ENCODING);
        let job = Job { id: "b1/0".into(), state: JobState::Running };
        assert_eq!(list(&listed, &namespaces()), Some(vec![job]));
        assert_eq!(list(&Variant::Empty, &namespaces()), Some(vec![]));
    }

    #[test]
    fn what_is_no_list_of_jobs_says_so() {
        let order = Order { id: "b".into(), ..Order::default() }.encode();
        assert_eq!(list(&Variant::from(7i32), &namespaces()), None);
        assert_eq!(list(&on_list(&order, 3, 1), &namespaces()), None);
        let of_elsewhere = vec![String::new(), "urn:elsewhere".to_owned()];
        assert_eq!(list(&on_list(&order, 3, JOB_ORDER_AND_STATE_ENCODING), &of_elsewhere), None);
        for end in 0..order.len() {
            let cut = on_list(&order[..end], 3, JOB_ORDER_AND_STATE_ENCODING);
            assert_ne!(
                list(&cut, &namespaces()),
                Some(vec![Job { id: "b".into(), state: JobState::Running }]),
                "{end}"
            );
        }
    }

    #[test]
    fn a_return_status_is_read_bit_by_bit() {
        assert!(ReturnStatus(1).is_done() && !ReturnStatus(3).is_done());
        assert_eq!(ReturnStatus(2).to_string(), "no such job (return status 2)");
        assert_eq!(ReturnStatus(0).to_string(), "return status 0");
    }
}
