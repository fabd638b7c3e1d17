"""E-mail by SMTP, with TLS from the beginning (implicit) or from STARTTLS on."""

import smtplib
from email.message import EmailMessage
from email.utils import formatdate
from typing import List, Optional

from jetson.alerts.body import title
from jetson.alerts.fields import Fields
from jetson.alerts.receiver import Failed, Message, Receiver, Refused, check_ca, context
from jetson.alerts.secret import Secret
from jetson.errors import BadInput
from jetson.net import loopback

TLS = ("starttls", "implicit", "off")
_PORTS = {"starttls": 587, "implicit": 465, "off": 25}
_NEVER = (552, 554)  # too large, not wanted: it is this message


class Mail(Receiver):
    """`tls` "off" is for a server on this machine alone."""

    kind = "email"

    def __init__(
        self,
        name: str,
        host: str,
        port: int,
        sender: str,
        to: List[str],
        tls: str = "starttls",
        username: str = "",
        password: Optional[Secret] = None,
        ca_file: str = "",
        picture: bool = False,
        timeout_s: float = 20.0,
    ) -> None:
        super().__init__(name, timeout_s, picture)
        self._server = (host, port)
        self._sender = sender
        self._to = to
        self._tls = tls
        self._username = username
        self._password = password
        self._ca_file = ca_file
        self.secrets = (password,)

    @classmethod
    def of(cls, name: str, fields: Fields) -> "Mail":
        """From its settings: host, port, tls, username, password, from, to, ca_file, picture, timeout."""
        host = fields.text("host", expected="the mail server's name")
        tls = fields.choice("tls", TLS, "starttls")
        if tls == "off" and not loopback(host):
            raise BadInput("mail without TLS to another machine", fields.at("tls"), "starttls or implicit")
        username, password = fields.text("username", ""), fields.secret("password")
        if bool(username) != (password is not None):
            raise BadInput("a username without a password, or the other way round", fields.where, "both, or neither")
        to = fields.texts("to", "a mail address, or a list of them")
        sender = fields.text("from", expected="a mail address")
        for key, one in [("from", sender)] + [("to", one) for one in to]:
            if one.count("@") != 1 or not one.isprintable() or any(letter in one for letter in ' ,;<>"\r\n'):
                raise BadInput(f"not a mail address: {one!r:.60}", fields.at(key), "NAME@HOST")
        if not to:
            raise BadInput("nobody to write to", fields.at("to"), "a mail address, or a list of them")
        return cls(
            name,
            host,
            fields.whole("port", _PORTS[tls], 1, 65535),
            sender,
            to,
            tls,
            username,
            password,
            fields.path("ca_file"),
            fields.flag("picture"),
            fields.seconds("timeout", 20.0, 0.1, 120),
        )

    @property
    def place(self) -> str:
        """The server."""
        return "smtp://{}:{}".format(*self._server)

    def prepare(self, where: str) -> None:
        """See Receiver."""
        super().prepare(where)
        check_ca(self._ca_file, where)

    def send(self, message: Message) -> None:
        """Deliver it."""
        host, port = self._server
        try:
            if self._tls == "implicit":
                tls = context(self._ca_file)
                server: smtplib.SMTP = smtplib.SMTP_SSL(host, port, timeout=self.timeout_s, context=tls)
            else:
                server = smtplib.SMTP(host, port, timeout=self.timeout_s)
            with server:
                if self._tls == "starttls":
                    server.starttls(context=context(self._ca_file))
                if self._password is not None:
                    server.login(self._username, self._password.read())
                server.send_message(self._written(message))
        except smtplib.SMTPRecipientsRefused as error:
            raise Failed("no recipient was accepted") from error
        except smtplib.SMTPAuthenticationError as error:
            raise Failed(f"the login was refused ({error.smtp_code})") from error
        except smtplib.SMTPNotSupportedError as error:
            raise Failed("the server does not know STARTTLS or the login") from error
        except smtplib.SMTPResponseException as error:
            kind = Refused if isinstance(error, smtplib.SMTPDataError) and error.smtp_code in _NEVER else Failed
            raise kind(f"answered with {error.smtp_code}") from error
        except smtplib.SMTPException as error:
            raise Failed(f"not an SMTP answer ({type(error).__name__})") from error

    def _written(self, message: Message) -> EmailMessage:
        body = message.body
        mail = EmailMessage()
        mail["Subject"] = title(body)
        mail["From"] = self._sender
        mail["To"] = ", ".join(self._to)
        mail["Date"] = formatdate()
        # The same at each attempt: mail servers and readers know a message by it.
        mail["Message-ID"] = f"<{message.key}@jetmask.invalid>"
        lines = [body["text"], ""]
        lines += [f"{key}: {value}" for key, value in body.items() if value is not None and key not in ("text", "test")]
        mail.set_content("\n".join(lines) + "\n")
        if message.picture is not None:
            mail.add_attachment(message.picture, "image", "jpeg", filename="alert.jpg")
        return mail
