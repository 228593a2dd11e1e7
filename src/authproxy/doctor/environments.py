"""Test and production mixed: hosts, keys, instances, stores."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields

from authproxy.core.client_auth import begins_with
from authproxy.core.facts import EntryEnvironment
from authproxy.core.model import Connection, Environment
from authproxy.doctor.case import Case, Registration, host_of, plural, some
from authproxy.doctor.check import check
from authproxy.doctor.finding import Certainty, Finding, error, info, warning

# The words by which the catalogue's environments are for trying things out. `testing` is of the app, not of its
# hosts, and has a check of its own (D02).
REHEARSAL = frozenset({"sandbox", "demo", "preview", "test", "developer_test_account"})


def _hosts(environment: EntryEnvironment) -> set[str]:
    urls = [getattr(environment.endpoints, item.name) for item in fields(environment.endpoints)]
    urls += [environment.issuer, environment.revocation_url, environment.upstream]
    found = {host_of(url) for url in urls if url and "{" not in host_of(url)}
    return (found | {host for host in environment.api_hosts or () if "{" not in host}) - {""}


def _usual(one: Registration) -> set[str]:
    ends = one.facts.endpoints
    urls = [getattr(ends, item.name) for item in fields(ends)]
    return ({host_of(url) for url in urls if url} | set(one.facts.api.hosts)) - {""}


def by_host(one: Registration) -> dict[str, str]:
    """Hosts that belong to one of the provider's environments alone, with its name."""
    owners: dict[str, set[str]] = {}
    for name, environment in one.facts.environments.items():
        for host in _hosts(environment):
            owners.setdefault(host, set()).add(name)
    endpoints = {
        host_of(getattr(one.facts.endpoints, item.name) or "") for item in fields(one.facts.endpoints)
    }
    return {
        host: next(iter(names)) for host, names in owners.items() if len(names) == 1 and host not in endpoints
    }


def _left_behind(one: Registration) -> set[str]:
    """Hosts of the usual environment that the chosen one has others for."""
    chosen = one.facts.environments.get(one.choice.environment or "")
    if chosen is None:
        return set()
    replaced = {
        host_of(getattr(one.facts.endpoints, item.name) or "")
        for item in fields(chosen.endpoints)
        if getattr(chosen.endpoints, item.name)
    }
    if chosen.upstream:
        replaced.add(one.facts.api.hosts[0])
    return replaced - _hosts(chosen) - {""}


@check("D05", "Hosts of one environment with those of another")
def hosts(case: Case) -> Iterator[Finding]:
    """The provider's own environment (`environment`) and every host that is called, against this configuration's
    environment and against one another: DocuSign account-d, Salesforce test, QuickBooks sandbox, Okta preview,
    GovSlack, national clouds, regions."""
    for one in case.each():
        chosen = one.choice.environment
        if case.in_production and chosen in REHEARSAL:
            yield error(
                "D04" if one.entry == "salesforce" else "D05",
                one.name,
                "A test environment in production",
                wrong=f"environment is production, and the provider's own is {chosen}.",
                why="Real users have no account there: every consent fails, or test data is used as if it were real.",
                do=f"Take providers.{one.name}.environment out, and use the registration made for production.",
                seen=[f"providers.{one.name}.environment: {chosen}"],
            )
        owners = by_host(one)
        strange = {
            host: owners[host]
            for url in one.urls
            if (host := host_of(url)) in owners and owners[host] != chosen
        }
        behind = sorted({host_of(url) for url in one.urls} & _left_behind(one))
        if behind:
            yield error(
                "D04" if one.entry == "salesforce" else "D05",
                one.name,
                "A host of the usual environment",
                wrong=f"The provider's environment is {chosen}, and {', '.join(behind)} is of the usual one.",
                why="Tokens of one environment are unknown in the other: refreshes fail like dead grants "
                "(invalid_grant), API calls with 401.",
                do=f"Leave the single URLs out, or take environment: {chosen} out.",
                sure=one.sure(f"environments.{chosen}"),
            )
        usual = {host for url in one.urls if (host := host_of(url)) in _usual(one) and host not in owners}
        for host, owner in strange.items():
            tell = error if usual or chosen or (case.in_production and owner in REHEARSAL) else warning
            yield tell(
                "D04" if one.entry == "salesforce" else "D05",
                one.name,
                "A host of another environment",
                wrong=f"{host} belongs to the provider's environment {owner}; "
                + (
                    f"{chosen} is chosen."
                    if chosen
                    else "none is chosen, so that the others are those of production."
                ),
                why="Tokens of one environment are unknown in the other: refreshes fail like dead grants "
                "(invalid_grant), API calls with 401.",
                do=f"Say environment: {owner} and leave the single URLs out, or correct the host.",
                sure=one.sure(f"environments.{owner}"),
                seen=[f"{each} → {name}" for each, name in strange.items()],
            )
        if (
            not case.in_production
            and case.environment is Environment.STAGING
            and chosen is None
            and REHEARSAL & one.facts.environments.keys()
        ):
            kinds = ", ".join(sorted(REHEARSAL & one.facts.environments.keys()))
            yield info(
                "D05",
                one.name,
                "Staging against the provider's production",
                wrong=f"The provider has an environment for trials ({kinds}), and staging does not use it.",
                why="What is rehearsed here happens to real accounts; what differs there is seen only if it is used.",
                do=f"Say providers.{one.name}.environment, if that is not meant.",
                sure=Certainty.POSSIBLE,
            )


@check(
    "D04",
    "Grants of a Salesforce sandbox in production, or the reverse",
    "store",
    leaves="no token is introspected: stored tokens are never sent",
)
def instances(case: Case) -> Iterator[Finding]:
    """The instance that each stored Salesforce grant names (`.sandbox.` or `--` in it) against the login host."""
    for one in case.each():
        field = one.facts.api.upstream_from
        if field is None or one.entry != "salesforce":
            continue
        login = host_of((one.provider and one.provider.endpoints.token) or "")
        sandbox = login == "test.salesforce.com" or "--" in login or ".sandbox." in login
        named = [(c, host_of(c.extra.get(field, ""))) for c in case.at(one.name)]
        wrong = [c for c, host in named if host and _is_sandbox(host) != sandbox]
        if wrong:
            yield error(
                "D04",
                one.name,
                "Instances of the other environment",
                wrong=f"{plural(len(wrong), 'grant')} belong to "
                f"{'production' if sandbox else 'sandbox'} instances; the login host is {login}.",
                why="Their refresh tokens are unknown at this login host: the next refresh says invalid_grant, and the "
                "grants look revoked.",
                do="Use one provider entry per environment, and let these users connect at the right one.",
                sure=one.sure("notes", at_best=Certainty.LIKELY),
                seen=[*some(wrong), *sorted({host_of(c.extra[field]) for c in wrong})[:3]],
            )


def _is_sandbox(host: str) -> bool:
    return ".sandbox." in host or "--" in host


@check("D06", "Test keys in production, live keys in tests")
def keys(case: Case) -> Iterator[Finding]:
    """The public prefix of the client secret (`sk_test_`, `sk_live_`) against the environment, and the `livemode`
    that stored grants carry."""
    for one in case.each():
        kind = begins_with(one.choice.client_secret, "sk_test_", "sk_live_", "rk_test_", "rk_live_")
        if kind is None or "client_secret" in one.absent:
            continue
        live = kind.endswith("live_")
        if live != case.in_production:
            yield (error if case.in_production else warning)(
                "D06",
                one.name,
                "A test key in production" if case.in_production else "A live key outside production",
                wrong=f"The client secret begins with {kind}, and this is {case.environment}.",
                why="No real account can be reached with it."
                if case.in_production
                else "What is tried here moves real money.",
                do="Exchange client id and secret for those of the right mode.",
            )
        odd = [
            c
            for c in case.at(one.name)
            if c.extra.get("livemode") in ("true", "false") and (c.extra["livemode"] == "true") != live
        ]
        if odd:
            yield error(
                "D06",
                one.name,
                "Grants of the other mode",
                wrong=f"{plural(len(odd), 'grant')} were made in the other mode than the key ({kind}…).",
                why="They cannot be used or refreshed with it.",
                do="Let these users connect again, or use the key of their mode.",
                seen=some(odd),
            )


@check("C12", "A store of another environment", "store")
def stamped(case: Case) -> Iterator[Finding]:
    """The environment that the store was made for, and the one that each row was sealed for, against this one's."""
    odd: list[Connection] = [c for c in case.connections or () if c.environment is not case.environment]
    if odd:
        yield error(
            "C12",
            None,
            "Rows of another environment",
            wrong=f"{plural(len(odd), 'row')} belong to {odd[0].environment}.",
            why="Refreshing a copied grant rotates the original out of its own environment.",
            do="Give each environment a store of its own, and let its users connect there.",
            seen=some(odd),
        )


@check("C12", "The store belongs to another environment")
def refused(case: Case) -> Iterator[Finding]:
    """Whether the store, if there is one, refused to open because it was made for another environment."""
    if case.store_trouble == "environment_mismatch":
        yield error(
            "C12",
            None,
            "The store belongs to another environment",
            wrong=f"This store was not made for {case.environment}: it refuses to open.",
            why="Were it opened, this environment would refresh the other's grants and rotate them away from it. "
            "`serve` will not start.",
            do="Name this environment's own store with --store. A copy of another's is of no use: its users have to "
            "connect here.",
        )


@check("C09", "The store cannot be opened with the keys given")
def unopened(case: Case) -> Iterator[Finding]:
    """Whether the sealing keys given here open the store: two replicas with different keys cannot finish one
    another's consents."""
    if case.store_trouble in ("keys_absent", "key_unknown", "tampered", "keys_invalid", "keys_ambiguous"):
        yield warning(
            "C09",
            None,
            "The store was not read",
            wrong=f"The sealing keys given here do not open it ({case.store_trouble.replace('_', ' ')}).",
            why="If the running processes have the same trouble, no grant can be used; if only this one has, the "
            "checks of stored grants were left out.",
            do="Run the doctor with AUTHPROXY_KEYS or AUTHPROXY_KEYS_FILE as the processes have them.",
            sure=Certainty.LIKELY,
        )
    elif case.store_trouble not in (None, "environment_mismatch"):
        yield warning(
            "C09",
            None,
            "The store was not read",
            wrong=f"It cannot be read ({case.store_trouble.replace('_', ' ')}).",
            why="The checks of stored grants were left out.",
            do="See whether `authproxy connections list` can read it.",
        )


@check("C09", "Rows that the keys do not open", "store")
def unreadable(case: Case) -> Iterator[Finding]:
    """Stored connections whose cells cannot be opened with the keys given here."""
    lost = [c for c in case.connections or () if c.reason == "unreadable"]
    if lost:
        yield error(
            "C09",
            None,
            "Rows that cannot be opened",
            wrong=f"{plural(len(lost), 'row')}, sealed under a key that is not given here or damaged.",
            why="Requests of these users fail with key_missing until the key is back; nothing is lost before that.",
            do="Add the missing key to AUTHPROXY_KEYS (older keys come after the newest).",
            seen=some(lost),
        )


CHECKS = (hosts, instances, keys, stamped, refused, unopened, unreadable)
