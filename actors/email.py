"""The e-mail queue. It has workers, so that whatever is put there is taken; its actors come with the e-mails."""

from actors.broker import broker

broker.declare_queue("email")
