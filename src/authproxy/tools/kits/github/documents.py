"""What is asked of GitHub's GraphQL."""

from __future__ import annotations

# --- threads of reviews --------------------------------------------------------------------------------------------

# The ids of comments are above what `databaseId`, an Int, can hold.
THREADS = """
query($owner: String!, $name: String!, $number: Int!, $after: String) {
  repository(owner: $owner, name: $name) {
    pullRequest(number: $number) {
      reviewThreads(first: 100, after: $after) {
        nodes { id isResolved comments(first: 1) { nodes { fullDatabaseId } } }
        pageInfo { hasNextPage endCursor }
      }
    }
  }
}"""

THREAD = """
query($id: ID!) {
  node(id: $id) {
    ... on PullRequestReviewThread {
      id isResolved path line
      repository { nameWithOwner }
      pullRequest { number }
    }
  }
}"""

RESOLVE = """
mutation($id: ID!) { resolveReviewThread(input: {threadId: $id}) { thread { id isResolved } } }"""

REOPEN = """
mutation($id: ID!) { unresolveReviewThread(input: {threadId: $id}) { thread { id isResolved } } }"""

# --- people --------------------------------------------------------------------------------------------------------

ASSIGNABLE = """
query($owner: String!, $name: String!, $words: String!) {
  repository(owner: $owner, name: $name) {
    assignableUsers(first: 20, query: $words) { nodes { login name } }
  }
}"""

# --- projects ------------------------------------------------------------------------------------------------------

_PROJECT = """
fragment P on ProjectV2 { id number title shortDescription closed public url updatedAt items { totalCount } }"""

# Both kinds of owners at once: asking for each by itself gives an error for the one that it is not.
ONE_PROJECT = (
    """
query($login: String!, $number: Int!) {
  owner: repositoryOwner(login: $login) {
    __typename login
    ... on ProjectV2Owner { projectV2(number: $number) { ...P } }
  }
}"""
    + _PROJECT
)

MANY_PROJECTS = (
    """
query($login: String!, $first: Int!, $after: String, $words: String) {
  owner: repositoryOwner(login: $login) {
    __typename login
    ... on ProjectV2Owner {
      projectsV2(first: $first, after: $after, query: $words, orderBy: {field: UPDATED_AT, direction: DESC}) {
        totalCount
        nodes { ...P }
        pageInfo { hasNextPage endCursor }
      }
    }
  }
}"""
    + _PROJECT
)

FIELDS = """
query($id: ID!) {
  node(id: $id) {
    ... on ProjectV2 {
      fields(first: 100) {
        nodes {
          ... on ProjectV2FieldCommon { id name dataType }
          ... on ProjectV2SingleSelectField { options { id name } }
          ... on ProjectV2IterationField { configuration { iterations { id title startDate duration } } }
        }
      }
    }
  }
}"""

# The states of issues and of pull requests are two types, which may not have one name in an answer.
_ITEM = """
fragment I on ProjectV2Item {
  id type isArchived updatedAt
  fieldValues(first: 20) {
    nodes {
      ... on ProjectV2ItemFieldTextValue { text field { ...F } }
      ... on ProjectV2ItemFieldNumberValue { number field { ...F } }
      ... on ProjectV2ItemFieldDateValue { date field { ...F } }
      ... on ProjectV2ItemFieldSingleSelectValue { name field { ...F } }
      ... on ProjectV2ItemFieldIterationValue { title field { ...F } }
    }
  }
  content {
    ... on DraftIssue { title assignees(first: 10) { nodes { login } } }
    ... on Issue {
      title number url issueState: state repository { nameWithOwner }
      assignees(first: 10) { nodes { login } } labels(first: 20) { nodes { name } }
    }
    ... on PullRequest {
      title number url pullState: state repository { nameWithOwner }
      assignees(first: 10) { nodes { login } } labels(first: 20) { nodes { name } }
    }
  }
}
fragment F on ProjectV2FieldConfiguration { ... on ProjectV2FieldCommon { name } }"""

_LIST = "{ totalCount nodes { ...I } pageInfo { hasNextPage endCursor } }"

ALL_ITEMS = (
    "query($id: ID!, $first: Int!, $after: String) "
    "{ node(id: $id) { ... on ProjectV2 { items(first: $first, after: $after) " + _LIST + " } } }" + _ITEM
)
"""Without `query`, which servers of some age do not know."""

FOUND_ITEMS = (
    "query($id: ID!, $first: Int!, $after: String, $words: String!) "
    "{ node(id: $id) { ... on ProjectV2 { items(first: $first, after: $after, query: $words) "
    + _LIST
    + " } } }"
    + _ITEM
)

TITLES = """
query($id: ID!, $after: String) {
  node(id: $id) {
    ... on ProjectV2 {
      items(first: 100, after: $after) {
        nodes { id content { ... on DraftIssue { title } ... on Issue { title } ... on PullRequest { title } } }
        pageInfo { hasNextPage endCursor }
      }
    }
  }
}"""

ITEM = "query($id: ID!) { node(id: $id) { ... on ProjectV2Item { project { id } ...I } } }" + _ITEM

ADD_ITEM = """
mutation($project: ID!, $content: ID!) {
  addProjectV2ItemById(input: {projectId: $project, contentId: $content}) { item { id } }
}"""
