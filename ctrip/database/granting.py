"""The groups of `roles.py` in a database: made where that is allowed, given what TABLES says, and compared with it.

Groups belong to a whole server, tables to one database: whatever another database's upgrade has made is taken as it is.
Where this user may not do a part of it, nothing fails: what an administrator has to run is returned in words.
"""

from collections.abc import Iterable, Iterator

import sqlalchemy as sa
from psycopg2 import errorcodes
from sqlalchemy import Connection

from ctrip.database.roles import Group, Kind, Privilege, objects, privileges

_GRANTED = (Group.API, Group.WORKER, Group.READONLY)
_MADE_MEANWHILE = (errorcodes.DUPLICATE_OBJECT, errorcodes.UNIQUE_VIOLATION)


def settle(connection: sa.Connection) -> list[str]:
    """Make the groups that are missing, let the migrator own everything, and grant anew what TABLES says.

    Returns what is left to an administrator. The caller holds the lock of an upgrade, and has no transaction open.
    """
    remarks = prepare(connection)
    there = groups(connection)
    granted = [group for group in _GRANTED if group in there]
    if granted and not _run(connection, _grants(connection, granted)):
        remarks.append("this user may not grant what the groups need; run `ctrip db upgrade` as a member of the owner")
    for group in granted:
        missing = lacking(connection, group, user=group)
        if missing:
            remarks.append(f"{group} lacks {said(missing)}")
    connection.commit()
    return remarks


def prepare(connection: sa.Connection) -> list[str]:
    """Do all of it that concerns no privilege on a table. Returns what is left to an administrator."""
    missing = _make_groups(connection)
    if missing:
        statements = [f"CREATE ROLE {group} NOLOGIN;" for group in missing]
        if Group.MIGRATOR in missing:
            statements.append(f"GRANT {Group.MIGRATOR} TO {quoted(_user(connection))};")
        return [_for_an_administrator("the groups of users are not there, and this user may make none", statements)]
    return [*_open_schema(connection), *_hand_over(connection)]


def lacking(session: Connection | sa.Connection, group: Group, *, user: str | None = None) -> list[Privilege]:
    """Return what a group needs and a user may not do; None is the user of this connection.

    What is not there, because the database is of another revision, is left out.
    """
    wanted = list(_by_column(privileges(group)))
    arrays = {
        "kinds": [each.kind for each in wanted],
        "names": [each.name for each in wanted],
        "verbs": [each.verb for each in wanted],
        "columns": [next(iter(each.columns), None) for each in wanted],
    }
    rows = session.execute(_LACKING, arrays | {"of_user": user})
    return [Privilege(Kind(row.kind), row.name, row.verb, (row.col,) if row.col else ()) for row in rows]


def said(missing: list[Privilege], *, most: int = 5) -> str:
    """Tell of missing privileges in a message, of `most` in full."""
    left = len(missing) - most
    return ", ".join(map(str, missing[:most])) + (f" and {left} more" if left > 0 else "")


def _make_groups(connection: sa.Connection) -> list[Group]:
    """Make what is missing of the groups. Returns those that are missing still."""
    for group in sorted(set(Group) - groups(connection)):
        try:
            if not _run(connection, [f"CREATE ROLE {group} NOLOGIN"]):
                break
        except sa.exc.DBAPIError as error:
            # By the upgrade of another database of this server.
            if _state(error) not in _MADE_MEANWHILE:
                raise
        else:
            # It owns what this user made, so this user must go on to be able to change that.
            if group is Group.MIGRATOR and not _is_superuser(connection):
                _run(connection, [f"GRANT {group} TO CURRENT_USER"])
    return sorted(set(Group) - groups(connection))


def _open_schema(connection: sa.Connection) -> Iterator[str]:
    """Let the groups into the schema, and take from everybody what Postgres grants to everybody there."""
    schema, database = connection.execute(sa.text("SELECT current_schema(), current_database()")).one()
    everybody = "has_schema_privilege('public', current_schema(), 'CREATE')"
    steps = [
        (f"NOT {everybody}", f"REVOKE CREATE ON SCHEMA {quoted(schema)} FROM PUBLIC"),
        (
            "NOT has_database_privilege('public', current_database(), 'TEMPORARY')",
            f"REVOKE TEMPORARY ON DATABASE {quoted(database)} FROM PUBLIC",
        ),
        (
            f"has_schema_privilege('{Group.MIGRATOR}', current_schema(), 'CREATE')",
            f"GRANT USAGE, CREATE ON SCHEMA {quoted(schema)} TO {Group.MIGRATOR}",
        ),
        (
            " AND ".join(f"has_schema_privilege('{group}', current_schema(), 'USAGE')" for group in _GRANTED),
            f"GRANT USAGE ON SCHEMA {quoted(schema)} TO {', '.join(_GRANTED)}",
        ),
    ]
    left = []
    for is_done, statement in steps:
        if connection.scalar(sa.text(f"SELECT {is_done}")):
            continue
        connection.commit()
        # Who may not is told so by a warning alone, and it stays as it was.
        _run(connection, [statement])
        if not connection.scalar(sa.text(f"SELECT {is_done}")):
            left.append(f"{statement};")
    connection.commit()
    if left:
        yield _for_an_administrator("the schema is open to others than it should be", left)


def _hand_over(connection: sa.Connection) -> Iterator[str]:
    """Let the migrator own everything, object by object: one that is in use is waited for, and no other one with it."""
    rows = connection.execute(_FOREIGN, {**_ours(), "owner": Group.MIGRATOR}).all()
    may = sa.text("SELECT pg_has_role(current_user, :owner, 'USAGE')")
    is_member = connection.scalar(may, {"owner": Group.MIGRATOR})
    connection.commit()
    for row in rows:
        name = row.name if row.kind == Kind.FUNCTION else quoted(row.name)
        if not is_member or not _run(connection, [f"ALTER {row.kind} {name} OWNER TO {Group.MIGRATOR}"]):
            statements = [f"GRANT {Group.MIGRATOR} TO {quoted(row.owner)};"]
            yield _for_an_administrator(f"{row.owner}, not {Group.MIGRATOR}, owns the tables", statements)
            return


def _grants(connection: sa.Connection, to: Iterable[Group]) -> list[str]:
    """Return what takes all privileges away and grants those of TABLES: one transaction, so nobody misses one."""
    rows = connection.execute(_THERE, _ours())
    there = {(row.kind, row.name): frozenset(row.columns or ()) for row in rows}
    connection.commit()
    statements = [
        f"REVOKE ALL ON {kind} {name if kind == Kind.FUNCTION else quoted(name)} FROM {', '.join(['PUBLIC', *to])}"
        for kind, name in there
    ]
    for group in to:
        for each in privileges(group):
            if (each.kind, each.name) not in there:
                continue
            columns = [quoted(column) for column in each.columns if column in there[each.kind, each.name]]
            of = f" ({', '.join(columns)})" if columns else ""
            if columns or not each.columns:
                name = each.name if each.kind is Kind.FUNCTION else quoted(each.name)
                statements.append(f"GRANT {each.verb}{of} ON {each.kind} {name} TO {group}")
    return statements


def _ours() -> dict[str, list[str]]:
    ours = list(objects())
    return {"kinds": [kind for kind, _ in ours], "names": [name for _, name in ours]}


def _by_column(wanted: Iterable[Privilege]) -> Iterator[Privilege]:
    for each in wanted:
        if each.columns:
            yield from (Privilege(each.kind, each.name, each.verb, (column,)) for column in each.columns)
        else:
            yield each


def _run(connection: sa.Connection, statements: Iterable[str]) -> bool:
    """Run statements in one transaction. Returns False, and nothing is done, where this user may not."""
    try:
        with connection.begin():
            connection.execute(sa.text("; ".join(statements)))
    except sa.exc.DBAPIError as error:
        if not is_refused(error):
            raise
        return False
    return True


def groups(connection: sa.Connection) -> set[Group]:
    """Return the groups that are there."""
    query = sa.text("SELECT rolname FROM pg_roles WHERE rolname = ANY (:names)")
    found = {Group(name) for name in connection.scalars(query, {"names": list(Group)})}
    connection.commit()
    return found


def _user(connection: sa.Connection) -> str:
    user: str = connection.execute(sa.text("SELECT current_user")).scalar_one()
    connection.commit()
    return user


def _is_superuser(connection: sa.Connection) -> bool:
    found = bool(connection.scalar(sa.text("SELECT rolsuper FROM pg_roles WHERE rolname = current_user")))
    connection.commit()
    return found


def is_refused(error: sa.exc.DBAPIError) -> bool:
    """Say whether an error is that this user may not do it."""
    return _state(error) == errorcodes.INSUFFICIENT_PRIVILEGE


def _state(error: sa.exc.DBAPIError) -> str | None:
    return getattr(error.orig, "pgcode", None)


def quoted(name: str) -> str:
    """Write a name into the text of a statement."""
    # A colon would be a parameter's.
    return '"' + name.replace('"', '""').replace(":", r"\:") + '"'


def _for_an_administrator(what: str, statements: Iterable[str]) -> str:
    lines = "".join(f"\n    {statement}" for statement in statements)
    return f"{what}. An administrator of Postgres runs, before the next `ctrip db upgrade`:{lines}"


# --- what is there --------------------------------------------------------------------------------------------------

# No object of another kind is looked up by a name: one of a function is none of a table.
_OURS = """
    FROM unnest(CAST(:kinds AS text[]), CAST(:names AS text[])) AS ours(kind, name)
    LEFT JOIN pg_class ON pg_class.oid = to_regclass(CASE WHEN kind <> 'FUNCTION' THEN quote_ident(name) END)
    LEFT JOIN pg_proc ON pg_proc.oid = to_regprocedure(CASE WHEN kind = 'FUNCTION' THEN name END)
"""
_THERE = sa.text(
    "SELECT kind, name, (SELECT array_agg(attname::text) FROM pg_attribute WHERE attrelid = pg_class.oid"  # noqa: S608 (ours)
    f" AND attnum > 0 AND NOT attisdropped) AS columns {_OURS} WHERE coalesce(pg_class.oid, pg_proc.oid) IS NOT NULL"
)
# A sequence that is a column's own belongs to whom the table does.
_FOREIGN = sa.text(
    f"SELECT kind, name, pg_get_userbyid(coalesce(relowner, proowner))::text AS owner {_OURS}"  # noqa: S608 (ours)
    " WHERE pg_get_userbyid(coalesce(relowner, proowner)) <> :owner"
    " AND NOT EXISTS (SELECT FROM pg_depend WHERE objid = pg_class.oid AND deptype = 'i')"
)
_LACKING = sa.text(
    """
    SELECT kind, name, verb, col
    FROM unnest(
        CAST(:kinds AS text[]), CAST(:names AS text[]), CAST(:verbs AS text[]), CAST(:columns AS text[])
    ) AS wanted(kind, name, verb, col)
    CROSS JOIN (SELECT coalesce(:of_user, current_user::text) AS asked) AS whoever
    LEFT JOIN pg_class ON pg_class.oid = to_regclass(CASE WHEN kind <> 'FUNCTION' THEN quote_ident(name) END)
    LEFT JOIN pg_proc ON pg_proc.oid = to_regprocedure(CASE WHEN kind = 'FUNCTION' THEN name END)
    LEFT JOIN pg_attribute ON attrelid = pg_class.oid AND attname = col AND NOT attisdropped
    WHERE NOT CASE
        WHEN kind = 'FUNCTION' THEN has_function_privilege(asked, pg_proc.oid, verb)
        WHEN kind = 'SEQUENCE' THEN has_sequence_privilege(asked, pg_class.oid, verb)
        WHEN col IS NULL THEN has_table_privilege(asked, pg_class.oid, verb)
        ELSE has_column_privilege(asked, pg_class.oid, attnum, verb)
    END
    """
).bindparams(sa.bindparam("of_user", type_=sa.Text))
