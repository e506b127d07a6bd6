"""The OPC UA server below the counterpart: asyncua's, with sessions and security as the standard has them.

asyncua ties a session to its connection: when the connection goes, so do the session and its
subscriptions. Here a session lives until it is closed or times out, counts against the limit as long,
and can be taken up again over a new connection, which is what clients of real machines meet. It also
can be told to misbehave: to stop publishing, and to drop all connections.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import struct
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Optional

from asyncua import Server, ua
from asyncua.common.utils import ServiceError
from asyncua.server import binary_server_asyncio
from asyncua.server.internal_session import InternalSession, SessionState
from asyncua.server.monitored_item_service import MonitoredItemService
from asyncua.server.uaprocessor import UaProcessor
from asyncua.server.users import User, UserRole
from asyncua.ua.ua_binary import uatcp_to_binary
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding

from opcua_space import CachedInternalServer

DEFAULT_SESSION_TIMEOUT_MS = 60_000.0
REAP_INTERVAL_S = 0.1

_Ids = ua.ObjectIds
CREATE_SESSION = _Ids.CreateSessionRequest_Encoding_DefaultBinary
ACTIVATE_SESSION = _Ids.ActivateSessionRequest_Encoding_DefaultBinary
CLOSE_SESSION = _Ids.CloseSessionRequest_Encoding_DefaultBinary
PUBLISH = _Ids.PublishRequest_Encoding_DefaultBinary
WITHOUT_SESSION = frozenset(
    (
        _Ids.FindServersRequest_Encoding_DefaultBinary,
        _Ids.GetEndpointsRequest_Encoding_DefaultBinary,
        _Ids.RegisterServerRequest_Encoding_DefaultBinary,
        _Ids.RegisterServer2Request_Encoding_DefaultBinary,
        _Ids.CloseSecureChannelRequest_Encoding_DefaultBinary,
    )
)


def tell(line: str) -> None:
    """One event, or one answer, to whoever started this process, if they still listen."""
    try:
        print(line, flush=True)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


@dataclass(frozen=True)
class Access:
    """Who may connect, and how."""

    encrypted: bool = False
    certificate: Optional[Path] = None
    private_key: Optional[Path] = None
    trust: Optional[Path] = None
    user: Optional[str] = None
    password: Optional[str] = None
    max_sessions: Optional[int] = None
    reattach: bool = True


# --- sessions -------------------------------------------------------------------------------------


class CounterpartSession(InternalSession):
    """A session that may be activated again, over another connection."""

    async def create_session(
        self, params: ua.CreateSessionParameters, sockname: Optional[tuple[str, int]] = None
    ) -> ua.CreateSessionResult:
        if params.RequestedSessionTimeout <= 0:
            params.RequestedSessionTimeout = DEFAULT_SESSION_TIMEOUT_MS
        return await super().create_session(params, sockname)

    def activate_session(self, params: Any, peer_certificate: Any) -> Any:
        if self.state == SessionState.Activated:
            # asyncua lets a session be activated once only, and counts the activated ones.
            self.state = SessionState.Created
            InternalSession._current_connections -= 1
        return super().activate_session(params, peer_certificate)

    def has_subscription(self) -> bool:
        subscriptions = self.subscription_service.subscriptions.values()
        return any(s.session_id == self.session_id for s in subscriptions)

    def republish(self, params: ua.RepublishParameters) -> ua.NotificationMessage:
        """Says so when there is nothing to repeat: clients ask until they hear it.

        asyncua answers with an empty message for ever, and forgets a message that it has repeated.
        """
        subscription = self.subscription_service.subscriptions.get(params.SubscriptionId)
        if subscription is None:
            raise ServiceError(ua.StatusCodes.BadSubscriptionIdInvalid)
        result = subscription._not_acknowledged_results.get(params.RetransmitSequenceNumber)
        if result is None:
            raise ServiceError(ua.StatusCodes.BadMessageNotAvailable)
        return result.NotificationMessage


@dataclass
class Seat:
    """A session's place among those that the server allows."""

    session: CounterpartSession
    timeout: float
    last_heard: float
    processor: Optional["CounterpartProcessor"]

    def has_expired(self, now: float) -> bool:
        return now - self.last_heard > self.timeout


class SessionBook:
    """All sessions, whether or not a connection carries them."""

    def __init__(self, limit: Optional[int], reattach: bool) -> None:
        self._limit = limit
        self.reattach = reattach
        self._seats: dict[ua.NodeId, Seat] = {}

    def check_room(self) -> None:
        if self._limit is not None and len(self._seats) >= self._limit:
            tell("REFUSED CreateSession BadTooManySessions")
            raise ServiceError(ua.StatusCodes.BadTooManySessions)

    def open(self, session: CounterpartSession, processor: "CounterpartProcessor") -> None:
        self.leave(processor)
        seat = Seat(session, session.session_timeout, time.monotonic(), processor)
        self._seats[session.auth_token] = seat
        tell(f"SESSION {session.session_id.Identifier} opened, timeout {seat.timeout:g} s")

    def find(self, token: ua.NodeId) -> Optional[Seat]:
        return self._seats.get(token)

    def close(self, token: ua.NodeId) -> None:
        seat = self._seats.pop(token, None)
        if seat is not None:
            tell(f"SESSION {seat.session.session_id.Identifier} closed")

    def leave(self, processor: "CounterpartProcessor") -> None:
        """The connection is gone; its session stays."""
        for seat in self._seats.values():
            if seat.processor is processor:
                seat.processor = None
                tell(f"SESSION {seat.session.session_id.Identifier} lost its connection")

    async def reap_for_ever(self) -> None:
        while True:
            await asyncio.sleep(REAP_INTERVAL_S)
            now = time.monotonic()
            for token, seat in list(self._seats.items()):
                if seat.has_expired(now):
                    del self._seats[token]
                    if seat.processor is not None:
                        seat.processor.session = None
                    await seat.session.close_session(True)
                    tell(f"SESSION {seat.session.session_id.Identifier} timed out")


class CounterpartProcessor(UaProcessor):
    """One connection."""

    iserver: "CounterpartInternalServer"

    # Sessions.

    async def _process_message(self, typeid: ua.NodeId, requesthdr: Any, seqhdr: Any, body: Any) -> Any:
        service, token = typeid.Identifier, requesthdr.AuthenticationToken
        book = self.iserver.book
        if service == CREATE_SESSION:
            self._check_channel_is_offered()
            book.check_room()
            answer = await super()._process_message(typeid, requesthdr, seqhdr, body)
            book.open(self.session, self)
            return answer
        if service == ACTIVATE_SESSION:
            self._take_up(token)
        elif service not in WITHOUT_SESSION:
            self._check_session(token)
        if service == PUBLISH:
            self._check_something_to_publish()
        answer = await super()._process_message(typeid, requesthdr, seqhdr, body)
        if service == CLOSE_SESSION:
            book.close(token)
            self.session = None
        return answer

    def _check_channel_is_offered(self) -> None:
        """A channel without security serves discovery always, but sessions only if it is an endpoint."""
        if self.iserver.access.encrypted and self._connection.security_policy.URI == ua.SecurityPolicy.URI:
            tell("REFUSED CreateSession BadSecurityPolicyRejected")
            raise ServiceError(ua.StatusCodes.BadSecurityPolicyRejected)

    def _check_session(self, token: ua.NodeId) -> None:
        seat = self.iserver.book.find(token)
        if seat is None or seat.session is not self.session:
            raise ServiceError(ua.StatusCodes.BadSessionIdInvalid)
        seat.last_heard = time.monotonic()

    def _take_up(self, token: ua.NodeId) -> None:
        """Lets this connection carry the session, which another one may have carried before."""
        seat = self.iserver.book.find(token)
        if seat is None:
            raise ServiceError(ua.StatusCodes.BadSessionIdInvalid)
        if seat.session is not self.session:
            if not self.iserver.book.reattach:
                raise ServiceError(ua.StatusCodes.BadSessionIdInvalid)
            if seat.processor is not None:
                seat.processor.session = None
            self.session = seat.session
            self._adopt_subscriptions()
            tell(f"SESSION {self.session.session_id.Identifier} taken up again")
        seat.processor = self
        seat.last_heard = time.monotonic()

    def _adopt_subscriptions(self) -> None:
        for subscription in self.iserver.subscription_service.subscriptions.values():
            if subscription.session_id == self.session.session_id:
                subscription.pub_result_callback = self.forward_publish_response
                subscription.pub_request_callback = self.get_publish_request

    async def _session_watchdog_loop(self) -> None:
        """The session book looks after time-outs."""

    async def close(self) -> None:
        """The connection is gone. Notifications wait in their subscriptions from now on."""
        self._closing = True
        self._publish_requests.clear()
        self.iserver.book.leave(self)

    # Publishing.

    def _check_something_to_publish(self) -> None:
        """asyncua keeps such requests, and says nothing."""
        if not self.iserver.silent and not self.session.has_subscription():
            raise ServiceError(ua.StatusCodes.BadNoSubscription)

    def get_publish_request(self, subscription_id: ua.IntegerId) -> Any:
        if not self.iserver.silent:
            return super().get_publish_request(subscription_id)
        # The subscription asks again at its next interval. It must not die of old age until then.
        subscription = self.iserver.subscription_service.subscriptions.get(subscription_id)
        if subscription is not None:
            subscription._publish_cycles_count = -1
        return None

    def forget_waiting_subscriptions(self) -> None:
        self._publish_results_subs.clear()

    # Security.

    async def process(self, header: Any, body: Any) -> bool:
        try:
            return await super().process(header, body)
        except Exception as error:
            if header.MessageType != ua.MessageType.SecureOpen:
                raise
            # asyncua would leave the client waiting for an answer.
            return self._hang_up(_why_no_channel(error))

    def _hang_up(self, code: int) -> bool:
        status = ua.StatusCode(code)
        tell(f"REFUSED OpenSecureChannel {status.name}")
        message = ua.ErrorMessage(status, status.name)
        self._transport.write(uatcp_to_binary(ua.MessageType.Error, message))
        return False

    def open_secure_channel(self, algohdr: Any, seqhdr: Any, body: Any) -> None:
        """Asks for trust when the channel is opened, as the standard has it; asyncua asks later."""
        certificate = algohdr.SenderCertificate
        if certificate and not self.iserver.trusts(certificate):
            tell(f"REJECTED certificate {_thumbprint(certificate)}")
            raise ServiceError(ua.StatusCodes.BadSecurityChecksFailed)
        super().open_secure_channel(algohdr, seqhdr, body)


# --- the server -----------------------------------------------------------------------------------


class OneUser:
    """Lets in one user with a password, or anybody; never as an administrator, who could write."""

    def __init__(self, access: Access) -> None:
        self._access = access

    def get_user(
        self, iserver: Any, username: Any = None, password: Any = None, certificate: Any = None
    ) -> Optional[User]:
        if self._access.user is not None and (username, password) != (
            self._access.user,
            self._access.password,
        ):
            tell("REFUSED ActivateSession BadUserAccessDenied")
            return None
        return User(role=UserRole.User, name=username)


class CounterpartInternalServer(CachedInternalServer):
    """Keeps what all connections share."""

    def __init__(self, access: Access, nodes: Optional[dict]) -> None:
        super().__init__(nodes, OneUser(access))
        self.access = access
        self.book = SessionBook(access.max_sessions, access.reattach)
        self.silent = False

    def create_session(self, name: Any, user: Any = User(role=UserRole.Anonymous), external: bool = False) -> Any:
        return CounterpartSession(
            self, self.aspace, self.subscription_service, name, user=user, external=external
        )

    def check_user_token(self, isession: Any, token: Any) -> Any:
        return super().check_user_token(isession, token) or (None, None)

    def trusts(self, certificate: bytes) -> bool:
        """Reads the folder each time, so that a test may put a certificate there later."""
        if self.access.trust is None:
            return True
        return any(certificate == _der(path) for path in self.access.trust.iterdir() if path.is_file())


class CounterpartServer(Server):
    """An asyncua server with one endpoint, on the loopback interface only."""

    iserver: CounterpartInternalServer

    def __init__(self, port: int, access: Access, nodes: Optional[dict] = None) -> None:
        super().__init__(iserver=CounterpartInternalServer(access, nodes))
        self.name = "Millpool machine tool counterpart"
        self._application_uri = "urn:millpool:counterpart:machine-tool"
        self.set_endpoint(f"opc.tcp://127.0.0.1:{port}/millpool")
        self.set_security_IDs(["Anonymous"] if access.user is None else ["Username"])
        policy = ua.SecurityPolicyType
        self.set_security_policy(
            [policy.Basic256Sha256_SignAndEncrypt] if access.encrypted else [policy.NoSecurity]
        )
        self._reaper: Optional[asyncio.Task] = None

    async def load_identity(self) -> None:
        """The certificate and its key; its URI becomes the server's, since clients compare them."""
        access = self.iserver.access
        if access.certificate is None or access.private_key is None:
            return
        await self.load_certificate(access.certificate)
        await self.load_private_key(access.private_key)
        try:
            names = self.certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName)
        except x509.ExtensionNotFound:
            return
        for uri in names.value.get_values_for_type(x509.UniformResourceIdentifier):
            await self.set_application_uri(uri)

    async def start(self) -> None:
        await super().start()
        self._reaper = asyncio.create_task(self.iserver.book.reap_for_ever())

    def set_silent(self, silent: bool) -> None:
        self.iserver.silent = silent
        if silent:
            # Else the next publish request would be answered on the spot.
            for connection in self.bserver.clients:
                connection.processor.forget_waiting_subscriptions()

    def drop_connections(self) -> None:
        """Cuts all connections with a reset, as a switch or a crash would, without a word."""
        reset_at_once = struct.pack("ii", 1, 0)
        for connection in list(self.bserver.clients):
            raw = connection.transport.get_extra_info("socket")
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, reset_at_once)
            connection.transport.abort()


def _why_no_channel(error: Exception) -> int:
    if isinstance(error, ServiceError):
        return error.code
    if isinstance(error, ua.UaError):
        return ua.StatusCodes.BadSecurityPolicyRejected
    return ua.StatusCodes.BadSecurityChecksFailed


def _der(path: Path) -> bytes:
    content = path.read_bytes()
    if content.startswith(b"-----BEGIN"):
        return x509.load_pem_x509_certificate(content).public_bytes(Encoding.DER)
    return content


def _thumbprint(certificate: bytes) -> str:
    return x509.load_der_x509_certificate(certificate).fingerprint(hashes.SHA1()).hex()


def adapt_asyncua() -> None:
    """Puts the classes above in the place of asyncua's, which it does not let one choose."""
    binary_server_asyncio.UaProcessor = CounterpartProcessor
    _let_bad_values_pass_dead_bands()
    logging.getLogger("asyncua").setLevel(logging.CRITICAL)


def _let_bad_values_pass_dead_bands() -> None:
    """asyncua subtracts null from a number when a value turns bad, and the client never hears of it."""
    within_numbers = MonitoredItemService._is_deadband_exceeded

    def is_deadband_exceeded(self: MonitoredItemService, values: Any, flt: Any) -> bool:
        old, new = values.get_old_datavalue(), values.get_current_datavalue()
        if old is not None and (old.Value.Value is None or new.Value.Value is None):
            return True
        return within_numbers(self, values, flt)

    MonitoredItemService._is_deadband_exceeded = is_deadband_exceeded
