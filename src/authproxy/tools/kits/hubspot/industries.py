"""The industries that a company may have: the account's own list, or HubSpot's standard one."""

from __future__ import annotations

import difflib
from typing import Final

from authproxy.tools.kits.hubspot.asking import get, refused
from authproxy.tools.kits.hubspot.shaping import cut
from authproxy.tools.tool import Call, Json, Kind, ToolError

PROPERTY: Final = "/crm/v3/properties/companies/industry"

_NAMES: Final = """
    ACCOUNTING AIRLINES_AVIATION ALTERNATIVE_DISPUTE_RESOLUTION ALTERNATIVE_MEDICINE ANIMATION APPAREL_FASHION
    ARCHITECTURE_PLANNING ARTS_AND_CRAFTS AUTOMOTIVE AVIATION_AEROSPACE BANKING BIOTECHNOLOGY BROADCAST_MEDIA
    BUILDING_MATERIALS BUSINESS_SUPPLIES_AND_EQUIPMENT CAPITAL_MARKETS CHEMICALS CIVIC_SOCIAL_ORGANIZATION
    CIVIL_ENGINEERING COMMERCIAL_REAL_ESTATE COMPUTER_GAMES COMPUTER_HARDWARE COMPUTER_NETWORKING
    COMPUTER_NETWORK_SECURITY COMPUTER_SOFTWARE CONSTRUCTION CONSUMER_ELECTRONICS CONSUMER_GOODS CONSUMER_SERVICES
    COSMETICS DAIRY DEFENSE_SPACE DESIGN EDUCATION_MANAGEMENT ELECTRICAL_ELECTRONIC_MANUFACTURING ENTERTAINMENT
    ENVIRONMENTAL_SERVICES EVENTS_SERVICES EXECUTIVE_OFFICE E_LEARNING FACILITIES_SERVICES FARMING
    FINANCIAL_SERVICES FINE_ART FISHERY FOOD_BEVERAGES FOOD_PRODUCTION FUND_RAISING FURNITURE GAMBLING_CASINOS
    GLASS_CERAMICS_CONCRETE GOVERNMENT_ADMINISTRATION GOVERNMENT_RELATIONS GRAPHIC_DESIGN
    HEALTH_WELLNESS_AND_FITNESS HIGHER_EDUCATION HOSPITALITY HOSPITAL_HEALTH_CARE HUMAN_RESOURCES
    IMPORT_AND_EXPORT INDIVIDUAL_FAMILY_SERVICES INDUSTRIAL_AUTOMATION INFORMATION_SERVICES
    INFORMATION_TECHNOLOGY_AND_SERVICES INSURANCE INTERNATIONAL_AFFAIRS INTERNATIONAL_TRADE_AND_DEVELOPMENT INTERNET
    INVESTMENT_BANKING INVESTMENT_MANAGEMENT JUDICIARY LAW_ENFORCEMENT LAW_PRACTICE LEGAL_SERVICES
    LEGISLATIVE_OFFICE LEISURE_TRAVEL_TOURISM LIBRARIES LOGISTICS_AND_SUPPLY_CHAIN LUXURY_GOODS_JEWELRY MACHINERY
    MANAGEMENT_CONSULTING MARITIME MARKETING_AND_ADVERTISING MARKET_RESEARCH MECHANICAL_OR_INDUSTRIAL_ENGINEERING
    MEDIA_PRODUCTION MEDICAL_DEVICES MEDICAL_PRACTICE MENTAL_HEALTH_CARE MILITARY MINING_METALS
    MOTION_PICTURES_AND_FILM MUSEUMS_AND_INSTITUTIONS MUSIC NANOTECHNOLOGY NEWSPAPERS
    NON_PROFIT_ORGANIZATION_MANAGEMENT OIL_ENERGY ONLINE_MEDIA OUTSOURCING_OFFSHORING PACKAGE_FREIGHT_DELIVERY
    PACKAGING_AND_CONTAINERS PAPER_FOREST_PRODUCTS PERFORMING_ARTS PHARMACEUTICALS PHILANTHROPY PHOTOGRAPHY PLASTICS
    POLITICAL_ORGANIZATION PRIMARY_SECONDARY_EDUCATION PRINTING PROFESSIONAL_TRAINING_COACHING PROGRAM_DEVELOPMENT
    PUBLIC_POLICY PUBLIC_RELATIONS_AND_COMMUNICATIONS PUBLIC_SAFETY PUBLISHING RAILROAD_MANUFACTURE RANCHING
    REAL_ESTATE RECREATIONAL_FACILITIES_AND_SERVICES RELIGIOUS_INSTITUTIONS RENEWABLES_ENVIRONMENT RESEARCH
    RESTAURANTS RETAIL SECURITY_AND_INVESTIGATIONS SEMICONDUCTORS SHIPBUILDING SPORTING_GOODS SPORTS
    STAFFING_AND_RECRUITING SUPERMARKETS TELECOMMUNICATIONS TEXTILES THINK_TANKS TOBACCO
    TRANSLATION_AND_LOCALIZATION TRANSPORTATION_TRUCKING_RAILROAD UTILITIES VENTURE_CAPITAL_PRIVATE_EQUITY
    VETERINARY WAREHOUSING WHOLESALE WINE_AND_SPIRITS WIRELESS WRITING_AND_EDITING
"""
STANDARD: Final = tuple(_NAMES.split())


async def get_available_industry_types(call: Call) -> Json:
    """The values, sorted."""
    own = await _own(call)
    return sorted(own) if own else list(STANDARD)


async def industry(call: Call, wanted: str) -> str:
    """The value that is meant: a value or its label, whatever its case, spaces and punctuation.

    Raises RETRY with near choices. Where the account's list may not be read, an unknown one is left to HubSpot.
    """
    if not wanted.strip():
        return ""  # clears the property
    own = await _own(call)
    choices = own or {value: value for value in STANDARD}
    sought = _loose(wanted)
    for value, label in choices.items():
        if sought in (_loose(value), _loose(label)):
            return value
    if own is None:
        return "_".join(wanted.upper().split())
    near = difflib.get_close_matches(sought, [_loose(value) for value in choices], n=8, cutoff=0.4)
    told = [value for value in choices if _loose(value) in near or sought in _loose(value)][:10]
    raise ToolError(
        Kind.RETRY,
        f"industry_type: this HubSpot account has no industry {cut(wanted, 60)}.",
        hint=("Near ones: " + ", ".join(told) + ". " if told else "")
        + "Hubspot.GetAvailableIndustryTypes has all.",
        can_retry=True,
    )


async def _own(call: Call) -> dict[str, str] | None:
    """The account's values with their labels; None where its properties may not be read."""
    try:
        found = await get(call, PROPERTY)
    except ToolError as error:
        if not refused(error):
            raise
        return None
    options = [one for one in found.get("options") or () if isinstance(one, dict) and not one.get("hidden")]
    return {str(one["value"]): str(one.get("label") or one["value"]) for one in options if one.get("value")}


def _loose(text: str) -> str:
    return "".join(letter for letter in text.casefold() if letter.isalnum()).replace("and", "")
