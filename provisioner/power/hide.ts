/**
 * A BMC's words go into messages, events and logs, and some BMCs repeat what they refuse ("The value X for the property
 * Password …", Redfish Base.PropertyValueFormatError). Pure.
 */
export const hidePassword = (words: string, password: string | null): string =>
  password ? words.replaceAll(password, '<password>') : words;
