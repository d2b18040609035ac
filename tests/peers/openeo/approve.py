"""The person at the browser: enters the code of a device flow, logs in, consents.   approve.py URL CODE"""
import re, sys
import requests

def form(page):
    action = re.search(r'<form[^>]*action="([^"]*)"', page.text).group(1).replace("&amp;", "&")
    fields = re.findall(r'<input[^>]*>', page.text)
    value = lambda tag, name: (re.search(rf'{name}="([^"]*)"', tag) or [None, ""])[1]
    return requests.compat.urljoin(page.url, action), {value(t, "name"): value(t, "value") for t in fields if value(t, "name")}

browser = requests.Session()
page = browser.get(sys.argv[1])
for step in range(8):
    if "<form" not in page.text: break
    target, fields = form(page)
    if "user_code" in fields: fields["user_code"] = sys.argv[2]
    if "login" in fields: fields.update(login="ann", password="x")
    page = browser.post(target, data=fields)
print(page.status_code, re.sub(r"\s+", " ", re.sub(r"<[^>]*>", " ", page.text))[:200])
