"""What an agent should know before it uses the kit."""

from __future__ import annotations

from typing import Final

from authproxy.tools.tool import Call, Json

GUIDANCE: Final = (
    "Start with Hubspot.WhoAmI: it tells the account, its time zone and, where it can be known, the user.",
    (
        "Tools take ids. Find them with the ...DataByKeywords and List... tools; every answer holds the ids of the "
        "records and of what is associated with them."
    ),
    (
        "Search before you create a company or contact: HubSpot refuses a second contact with the same e-mail "
        "address, and takes a second company of the same name."
    ),
    (
        "HubSpot's search sees a new or changed record only after some seconds. To read a deal that you have just made "
        "or changed use Hubspot.GetDealById, and keep the ids that the create tools give back."
    ),
    (
        "Update tools take an id, or keywords. With keywords they change a record only if it is the only match; else "
        "they change nothing and name the candidates: ask the user if it is not clear which one is meant."
    ),
    (
        "Before a deal is created or moved, look at Hubspot.GetDealPipelines. Give stages by id or label; a stage "
        "belongs to one pipeline, and Hubspot.UpdateDealStage changes the pipeline only with allow_pipeline_change."
    ),
    (
        "A contact needs a company (company_id); an activity (call, e-mail, meeting, note, communication) needs at "
        "least one contact, company or deal. Activities are logged: no e-mail is sent, nobody is called or invited."
    ),
    (
        "Times without an offset are in the account's time zone, which the answer then names; write "
        "2026-01-31T14:30:00Z or an offset to be exact. All times in answers are UTC."
    ),
    (
        "Check industry_type against Hubspot.GetAvailableIndustryTypes; an owner may be given by id, e-mail address, "
        "name, or me."
    ),
    (
        "Lists come in pages: pass next_page_token on as it is. HubSpot hands out at most 10,000 results of a search: "
        "narrow it down instead of paging on."
    ),
    (
        "Ask for few associated objects (associations_limit, 0 for none) and few records: an answer with many costs "
        "many requests. HubSpot allows about 100 in ten seconds, and four searches in a second, for the whole account."
    ),
    "There are no tools that delete, and tasks can be searched but not created.",
)


async def toolkit_enviroment_guidance(call: Call) -> Json:
    """The guidance; no request is made."""
    return {"guidance": list(GUIDANCE)}
