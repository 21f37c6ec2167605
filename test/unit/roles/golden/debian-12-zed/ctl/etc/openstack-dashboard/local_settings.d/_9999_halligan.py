# Written by Halligan. Read last, after local_settings.py and the files before this one.
from openstack_dashboard.settings import HORIZON_CONFIG

DEBUG = False
WEBROOT = "/horizon/"
ALLOWED_HOSTS = ["10.99.0.11", "ctl.lab.example", "ctl"]
SECRET_KEY = "c8d11a28100832df6007dacd84f8e5e975cd49ffd3f93fc0cb713434a5d3e410"

OPENSTACK_HOST = "10.99.0.11"
OPENSTACK_KEYSTONE_URL = "https://10.99.0.11:5000/v3"
OPENSTACK_SSL_CACERT = "/etc/ssl/certs/halligan-ca.pem"
OPENSTACK_SSL_NO_VERIFY = False
OPENSTACK_API_VERSIONS = {"identity": 3, "image": 2, "volume": 3}
OPENSTACK_KEYSTONE_MULTIDOMAIN_SUPPORT = False
OPENSTACK_KEYSTONE_DEFAULT_DOMAIN = "Default"
OPENSTACK_CINDER_FEATURES = {"enable_backup": False}
COMPRESS_OFFLINE = True

SESSION_ENGINE = "django.contrib.sessions.backends.cache"
CACHES = {
    "default": {
        "BACKEND": "django.core.cache.backends.memcached.PyMemcacheCache",
        "LOCATION": ["127.0.0.1:11211"],
    }
}
SESSION_TIMEOUT = 3600
SESSION_COOKIE_AGE = 3600
SESSION_COOKIE_SECURE = True
SESSION_COOKIE_HTTPONLY = True
SESSION_COOKIE_SAMESITE = "Lax"
CSRF_COOKIE_SECURE = True
CSRF_COOKIE_SAMESITE = "Lax"
DISALLOW_IFRAME_EMBED = True
ENFORCE_PASSWORD_CHECK = True
PASSWORD_AUTOCOMPLETE = "off"
DISABLE_PASSWORD_REVEAL = True
PASSWORD_VALIDATOR = {
    "regex": "^.{12,128}$",
    "help_text": "A password has 12 to 128 characters.",
}
HORIZON_CONFIG["password_autocomplete"] = PASSWORD_AUTOCOMPLETE
HORIZON_CONFIG["disable_password_reveal"] = DISABLE_PASSWORD_REVEAL
HORIZON_CONFIG["password_validator"] = PASSWORD_VALIDATOR
