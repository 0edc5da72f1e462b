"""A real browser for tests, and web pages of another origin for it to open.

Fixtures in `tests/conftest.py`: `page` is an empty tab with storage of its own, `web_app` the address of a site at
`http://localhost:<port>`, every path of which is an empty page. What a page does is written in the test, as JavaScript:

    await page.goto(web_app)
    status = await page.evaluate("async url => (await fetch(url)).status", f"{stack.url}/health")
"""
